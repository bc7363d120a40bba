"""What the tests of this room share: tiny byte-level checkpoints, and who needs which package."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import byte_tokenizer

GUIDE = Path(__file__).parents[2] / "docs" / "finetuning.md"
CELLS = ("transformer", "mlp", "gru", "lstm", "elman")


def needs(*packages: str) -> list[pytest.MarkDecorator]:
    """Marks of a test file: deselected by default, and skipped where a package is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    reason = f"{', '.join(missing)} not installed; pip install 'smt-hf[ecosystem]'"
    return [
        pytest.mark.ecosystem,
        pytest.mark.skipif(bool(missing), reason=reason),
        # trl, peft and lm-eval still use names that transformers is about to rename.
        pytest.mark.filterwarnings("ignore:.*deprecated and will be removed in v6:FutureWarning"),
    ]


def tiny_model(cell: str = "gru", **changes: Any) -> SMTForCausalLM:
    """A byte-level model in eval mode, the same at every call."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(
        hidden_size=16, num_memory_tokens=4, num_hidden_layers=2, num_readout_layers=1, num_attention_heads=2,
        eos_token_id=256, bos_token_id=256, pad_token_id=257,
    )  # fmt: skip
    return SMTForCausalLM(SMTConfig(cell=cell, **{**sizes, **changes})).eval()


def save_checkpoint(folder: Path, model: SMTForCausalLM, chat_template: str | None = None) -> Path:
    """Model and byte tokenizer as a run leaves them."""
    model.save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder


def byte_ids(text: str) -> torch.Tensor:
    """(1, T): the UTF-8 bytes."""
    return torch.tensor([list(text.encode())])


def cell_layers_pattern() -> str:
    """The regular expression that the guide gives for the linear layers of any cell."""
    (line,) = (line for line in GUIDE.read_text("utf-8").splitlines() if line.startswith("CELL_LAYERS = "))
    return ast.literal_eval(line.removeprefix("CELL_LAYERS = "))
