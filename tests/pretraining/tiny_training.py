"""Tiny teachers, models, streams and runs for the tests of this room."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.soft_targets import SoftTargets
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.pretraining.trainer import SMTPretrainer
from smt_hf.runs.arguments import SMTPretrainingArguments

VOCAB, WIDTH, TOKENS, HEADS = 11, 16, 2, 2
CONTEXT, FUTURE = 12, 4
SHARED = dict(
    vocab_size=VOCAB,
    hidden_size=WIDTH,
    num_memory_tokens=TOKENS,
    num_readout_layers=1,
    num_attention_heads=HEADS,
    intermediate_size=24,
)
# Wall-clock times: all that may differ between two runs that are the same.
TIMES = ("seconds",)


def shake(module: torch.nn.Module) -> None:
    """Norms not 1 and biases not 0, so that each parameter counts."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A model that a teacher may be given, wider and less deep than one of its own."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": None,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**config, **changes})).eval()


def tiny_teacher(encoder_type: str = "causal", seed: int = 0, **changes: Any) -> SMTTeacher:
    torch.manual_seed(seed)
    sizes = {"num_hidden_layers": 2, "context_length": CONTEXT, "future_length": FUTURE}
    config: dict[str, Any] = {**SHARED, **sizes, "encoder_type": encoder_type, **changes}
    if encoder_type == "given":
        teacher = SMTTeacher.from_causal_lm(SoftTargets(tiny_llama(), VOCAB), **config).eval()
    else:
        teacher = SMTTeacher(SMTTeacherConfig(**config)).eval()
    shake(teacher)
    return teacher


def tiny_student(cell: str = "gru", seed: int = 1, **changes: Any) -> SMTForCausalLM:
    torch.manual_seed(seed)
    model = SMTForCausalLM(SMTConfig(**{**SHARED, "cell": cell, "num_hidden_layers": 1, **changes})).eval()
    shake(model)
    return model


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def random_batch(rows: int, length: int, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random tokens and random targets, about a third of which are −100."""
    targets = random_ids(rows, length, seed=seed + 1)
    missing = torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < 0.3
    return {
        "input_ids": random_ids(rows, length, seed=seed),
        "shift_labels": targets.masked_fill(missing, -100),
    }


class Stream(Dataset):
    """What a user might bring: rows of two tensors, and no more than the trainer asks for."""

    vocab_size = VOCAB
    fingerprint = "of the stream"

    def __init__(self, length: int = 16, rows: int = 96):
        self.length, self.rows = length, rows

    def __len__(self) -> int:
        return self.rows

    def tokens(self, index: int) -> torch.Tensor:
        """The row's tokens and one more."""
        return random_ids(self.length + 1, seed=1000 + index)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.tokens(index)
        return {"input_ids": row[:-1], "shift_labels": row[1:]}

    def at_length(self, length: int) -> "Stream":
        return type(self)(length, self.rows)


class PeriodicStream(Stream):
    """… 4 4 7 4 4 7 …, begun anywhere: after a 4 one must remember what came before it.

    In nats per token: 0.64 without looking at the input, 0.46 from the last token alone, 0 from two.
    """

    UNIGRAM = math.log(3) - 2 / 3 * math.log(2)
    BIGRAM = 2 / 3 * math.log(2)

    def tokens(self, index: int) -> torch.Tensor:
        return torch.tensor([4, 4, 7])[(torch.arange(self.length + 1) + index) % 3]


def tiny_arguments(output_dir: Path, **changes: Any) -> SMTPretrainingArguments:
    """Eight steps, half of them SMT, everything logged and no checkpoint, unless told otherwise."""
    values: dict[str, Any] = dict(
        max_steps=8,
        dmt_fraction=0.5,
        batch_size=8,
        rollout_length=4,
        num_labels=3,
        num_evaluations=4,
        eval_sequences=4,
        logging_steps=1,
        checkpoint_every=0,
        save_total_limit=100,
        disable_tqdm=True,
    )
    budget = {"max_steps": None} if "max_minutes" in changes else {}
    return SMTPretrainingArguments(str(output_dir), **{**values, **budget, **changes})


def tiny_trainer(
    output_dir: Path,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    cell: str = "gru",
    encoder_type: str = "causal",
    weights: int = 0,
    **changes: Any,
) -> SMTPretrainer:
    """New objects every time, as in a new process."""
    return SMTPretrainer(
        tiny_student(cell, seed=weights + 1),
        tiny_teacher(encoder_type, seed=weights),
        tiny_arguments(output_dir, **changes),
        Stream() if train_dataset is None else train_dataset,
        eval_dataset,
    )


def weights_of(trainer: SMTPretrainer) -> dict[str, torch.Tensor]:
    """Copies of all weights of model and teacher, by name."""
    named = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    if trainer.teacher is not None:
        named |= {f"teacher.{name}": value for name, value in trainer.teacher.state_dict().items()}
    return {name: value.clone() for name, value in named.items()}


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def losses(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are not evaluations."""
    return [line for line in metrics(folder) if "evaluation" not in line]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
