"""The step program as a file of ONNX, in float32 or with int8 weights, and how onnxruntime carries it out."""

from pathlib import Path

import numpy as np
import torch

from .program import Run, StepProgram, cannot_be_exported, cause_of, silence

OPSET = 20  # onnxruntime reads it since 1.17
LARGEST = 2_000_000_000  # bytes of weights: a file of ONNX ends at 2 GiB


def write_onnx(program: StepProgram, path: Path) -> None:
    """Trace the program and write it with its weights into one file.

    Raises ValueError for a cell that cannot be traced, and for more weights than a file of ONNX holds.
    """
    size = 4 * sum(weight.numel() for weight in program.parameters())
    if size > LARGEST:
        raise ValueError(
            f"the weights are {size:,} bytes in float32; a file of ONNX holds at most {LARGEST:,}."
        )
    inputs = torch.zeros(1, dtype=torch.long), torch.from_numpy(program.start())
    try:
        with silence(), torch.no_grad():
            exported = torch.onnx.export(
                program, inputs, dynamo=True, opset_version=OPSET, verbose=False,
                input_names=["token", "memory"], output_names=["logits", "next_memory"],
            )  # fmt: skip
            assert exported is not None
            exported.save(path, external_data=False)
    except Exception as error:  # whatever a cell does that a tracer cannot follow
        raise cannot_be_exported(program, error) from error


def quantize(path: Path) -> None:
    """Rewrite the file with int8 weights and int8 products: activations are quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_suffix(".int8")
    with silence():
        quantize_dynamic(path, target, weight_type=QuantType.QInt8, per_channel=True)
    target.replace(path)


def onnx_run(path: Path) -> Run:
    """The program in onnxruntime, on one thread: a step is too small to be shared out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot run the program ({cause_of(error)}); "
            f"pip install -U onnxruntime."
        ) from error

    def run(token: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, after = session.run(["logits", "next_memory"], {"token": token, "memory": memory})
        return logits, after

    return run
