"""Tiny models for the tests of this room: every cell, small enough to compute by hand."""

from typing import Any

import torch

from smt_hf import MemoryCell, SMTConfig, SMTForCausalLM
from smt_hf.models.cells import BUILT_IN_CELLS as BUILT_IN_CELLS

VOCAB, WIDTH, TOKENS, LAYERS = 23, 16, 4, 2


class LeakyCell(MemoryCell):
    """What a user might write: m' = m + tanh(W x) ⊙ scale, with parameters of both kinds."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.write = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, config.num_memory_tokens)[:, None])

    def step(self, memory: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return memory + self.scale * torch.tanh(self.write(inputs))[:, None]


def tiny_config(cell: str = "gru", **changes) -> SMTConfig:
    numbers: dict[str, Any] = dict(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_memory_tokens=TOKENS,
        num_hidden_layers=LAYERS,
        num_readout_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    return SMTConfig(cell=cell, **{**numbers, **changes})


def tiny_model(cell: str = "gru", seed: int = 0, **changes) -> SMTForCausalLM:
    """A model in eval mode, every parameter random: norms not 1 and biases not 0, so each one counts."""
    torch.manual_seed(seed)
    model = SMTForCausalLM(tiny_config(cell, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def generate(model: Any, ids: torch.Tensor | None = None, **options: Any) -> Any:
    """`model.generate`, whose declared types fit neither our models nor the two kinds of answer."""
    return model.generate(ids, **options)


def memory_of(state: Any) -> torch.Tensor:
    """The memory (B, K, D) that a cache holds."""
    return state.layers[0].memory


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def pad(rows: list[torch.Tensor], side: str, filler: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged rows → input_ids (B, T) and attention_mask (B, T), padded on one side."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), filler)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        real = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[i, real], mask[i, real] = row, 1
    return ids, mask


def rms_norm(x: torch.Tensor, weight: torch.Tensor | float = 1.0, eps: float = 1e-6) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def is_one_sentence(error: BaseException, *values: object) -> bool:
    """The message is one line, ends in a full stop, and names each of the values."""
    text = str(error)
    return "\n" not in text and text.endswith(".") and all(str(value) in text for value in values)
