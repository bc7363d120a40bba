"""The step program for ExecuTorch, PyTorch's runtime for phones and other small machines."""

from pathlib import Path

import numpy as np
import torch

from .program import Run, StepProgram, cannot_be_exported, silence


def write_executorch(program: StepProgram, path: Path) -> None:
    """Write the program to PATH (.pte), its products for XNNPACK. The weights are in the file, in float32.

    Raises ValueError for a cell that cannot be exported.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    example = torch.tensor([0]), torch.from_numpy(program.start())
    with silence():
        try:
            exported = torch.export.export(program, example)
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            content = lowered.to_executorch().buffer
        except Exception as error:  # whatever a cell does that a tracer cannot follow
            raise cannot_be_exported(program, error) from error
    path.write_bytes(content)


def executorch_run(path: Path) -> Run:
    """The program in ExecuTorch."""
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def run(token: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, then = method.execute([torch.from_numpy(token.copy()), torch.from_numpy(memory.copy())])
        return logits.numpy().copy(), then.numpy().copy()

    return run
