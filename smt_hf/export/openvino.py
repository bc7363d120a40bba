"""The step program for OpenVINO, converted from the file of ONNX."""

from pathlib import Path

import numpy as np

from .program import Run, silence

# Else a CPU that has bfloat16 computes in it.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def write_openvino(onnx_file: Path, path: Path) -> None:
    """Convert a file of ONNX to PATH (.xml) and the weights beside it (.bin), in the same precision."""
    import openvino

    with silence():
        openvino.save_model(openvino.convert_model(onnx_file), path, compress_to_fp16=False)


def openvino_run(path: Path) -> Run:
    """The program in OpenVINO, on one thread of the CPU."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", SETTINGS)

    def run(token: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled({"token": token, "memory": memory})
        return found["logits"].copy(), found["next_memory"].copy()

    return run
