"""The program that is exported, what stands beside it, and how it is compared with the model.

K memory tokens of width D, V token ids. `Run` is any runtime's way to carry the program out.
"""

import base64
import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.models.state_cache import memory_layer

# token (1,) int64, memory (1, K, D) float32 → logits (1, V), the memory (1, K, D) then
Run = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

NOTHING = -1
"""The token that reads nothing: the memory stays, and the logits are what it says."""
CHECKED_TOKENS = 64
LARGEST_DIFFERENCE = 1e-4  # of a logit, in float32


class StepProgram(nn.Module):
    """One token: the cell, then the readout. A prompt is read token by token; each weight stands here once."""

    def __init__(self, model: SMTForCausalLM):
        super().__init__()
        self.model = copy.deepcopy(model).float().cpu().eval().requires_grad_(False)

    def forward(self, token: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """token (1,), memory (1, K, D) → logits (1, V), next memory (1, K, D)."""
        core: Any = self.model.model
        inputs = core.cell.project_inputs(core.embed_tokens(token.clamp(min=0)))
        memory = torch.where(token[:, None, None] >= 0, core.cell(memory, inputs), memory)
        return self.model.lm_head(core.readout(memory)[:, 0]), memory

    def start(self) -> np.ndarray:
        """m_∅, (1, K, D) float32."""
        return self.model.model.start_memory(1).numpy().copy()


class Comparison(NamedTuple):
    """A program beside the model, over the tokens that the model finds most probable after a cold start.

    tokens: how many. difference: the largest of a logit, where each step begins with the model's memory.
    drift: the same, where the program goes on from its own memory. same: how often both then find the same
    token the most probable.
    """

    tokens: int
    difference: float
    drift: float
    same: int


@torch.no_grad()
def compare(run: Run, program: StepProgram, tokens: int = CHECKED_TOKENS) -> Comparison:
    """Carry the program out token by token, beside the model."""
    first = program.model.config.bos_token_id
    token = torch.tensor([[0 if first is None else first]])
    own = theirs = program.start()
    cache, differences, drifts, same = None, [], [], 0
    for _ in range(tokens):
        step, _ = run(token[0].numpy(), theirs)
        free, own = run(token[0].numpy(), own)
        out = program.model(token, cache=cache, use_cache=True)
        cache, wanted = out.cache, out.logits[:, 0].numpy()
        theirs = cast(Any, memory_layer(out.cache).memory).numpy()
        differences.append(furthest(step, wanted))
        drifts.append(furthest(free, wanted))
        token = out.logits[:, -1:].argmax(-1)
        same += int(free.argmax() == wanted.argmax())
    silent, unmoved = run(np.array([NOTHING]), own)
    differences.append(furthest(silent, free) if (unmoved == own).all() else math.inf)
    # numpy's max, unlike Python's, is nan where any of them is.
    return Comparison(tokens, float(np.max(differences)), float(np.max(drifts)), same)


def furthest(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(abs(found - wanted).max())


def check(comparison: Comparison, runtime: str) -> None:
    """Raises ValueError for a program that computes something else than the model."""
    if not comparison.difference <= LARGEST_DIFFERENCE:  # a nan is refused too
        raise ValueError(
            f"{runtime} computes logits that differ from PyTorch's by {comparison.difference:.1e}, more than "
            f"{LARGEST_DIFFERENCE:.0e}; nothing was written."
        )


def cannot_be_exported(program: StepProgram, error: Exception) -> ValueError:
    """What to raise where a tracer cannot follow a cell."""
    return ValueError(
        f"the cell {program.model.config.cell!r} cannot be exported ({cause_of(error)}); `step` and "
        f"`project_inputs` must be operations on tensors alone, without branches on their values."
    )


def cause_of(error: BaseException) -> str:
    """The first line of what lies at the bottom of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def described(program: StepProgram) -> dict[str, Any]:
    """What a runtime needs beside the program: shapes, special ids, and the memory to begin with."""
    config = program.model.config
    return {
        "format": "smt_program",
        "version": 1,
        "cell": config.cell,
        "vocab_size": config.vocab_size,
        "memory": [config.num_memory_tokens, config.hidden_size],
        "layers": config.num_hidden_layers + config.num_readout_layers,
        "parameters": sum(weight.numel() for weight in program.model.parameters()),
        "bos": config.bos_token_id,
        "eos": config.eos_token_id,
        "nothing": NOTHING,
        # float32, little-endian; by it a saved state of another model is told apart
        "initial_memory": base64.b64encode(program.start().astype("<f4").tobytes()).decode(),
    }


@contextmanager
def silence() -> Iterator[None]:
    """Exporters log pages about what the caller cannot change; a failure is raised besides."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
