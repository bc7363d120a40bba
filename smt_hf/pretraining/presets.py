"""Sizes that go together, so that nobody needs 35 flags. An explicit argument always wins."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """model: fields of SMTConfig. layers: depth of the cell by name, 1 for cells not listed.
    teacher: fields of SMTTeacherConfig beyond those it shares. training: SMTPretrainingArguments."""

    help: str
    model: dict[str, Any]
    teacher: dict[str, Any]
    training: dict[str, Any]
    layers: dict[str, int] = field(default_factory=dict)

    def cell_layers(self, cell: str) -> int:
        return self.layers.get(cell, 1)


PRESETS = {
    "tiny": Preset(
        "seconds on a laptop; for trying things and for tests",
        model={"hidden_size": 32, "num_memory_tokens": 2, "num_readout_layers": 1, "num_attention_heads": 2},
        teacher={"num_hidden_layers": 2, "context_length": 32, "future_length": 8},
        training={
            "batch_size": 16, "rollout_length": 16, "learning_rate": 2e-3, "dmt_learning_rate": 1e-3,
            "dmt_fraction": 0.5, "eval_horizon": 64, "eval_sequences": 16,
        },
    ),
    "small": Preset(
        "minutes on two CPU cores (D 128, K 4, 2 KB of state)",
        model={"hidden_size": 128, "num_memory_tokens": 4, "num_readout_layers": 2, "num_attention_heads": 4},
        teacher={"num_hidden_layers": 4, "context_length": 128, "future_length": 32},
        training={
            "batch_size": 16, "rollout_length": 32, "learning_rate": 2e-3, "dmt_learning_rate": 1e-3,
            "dmt_fraction": 0.5,
        },
        layers={"transformer": 2},
    ),
    "base": Preset(
        "for one GPU (D 256, K 8, 8 KB of state)",
        model={"hidden_size": 256, "num_memory_tokens": 8, "num_readout_layers": 2, "num_attention_heads": 8},
        teacher={"num_hidden_layers": 6, "context_length": 256, "future_length": 32},
        training={
            "batch_size": 64, "rollout_length": 64, "learning_rate": 1e-3, "dmt_learning_rate": 5e-4,
            "num_sweeps": 8,
        },
        layers={"transformer": 4},
    ),
    # The figures of arXiv 2606.06479: D 256, K 16, encoder 8 and decoder 4 layers, T_c 256, F 64,
    # batch 128 at 3e-4, then DMT over 256 tokens at 3e-5 (150,000 and 1,500 steps: a fraction of 0.01).
    "paper": Preset(
        "the published configuration (D 256, K 16, 8+4 layers, Tc 256, F 64)",
        model={"hidden_size": 256, "num_memory_tokens": 16, "num_readout_layers": 4, "num_attention_heads": 8},
        teacher={
            "num_hidden_layers": 8, "context_length": 256, "future_length": 64, "encoder_type": "bidirectional",
        },
        training={
            "batch_size": 128, "rollout_length": 255, "learning_rate": 3e-4, "dmt_learning_rate": 3e-5,
            "dmt_fraction": 0.01, "num_labels": 2, "dmt_label_every": 16,
        },
        layers={"transformer": 8},
    ),
}  # fmt: skip
