"""Trains a teacher on python-docs and measures what its soft targets are worth to a recurrent model.

    python studies/teachers.py train TEACHER --steps 1900
    python studies/teachers.py run TEACHER RUNS bptt soft --seeds 0 1 2 --cpu-seconds 420
    python studies/teachers.py table TEACHER RUNS > results/teachers.json

results/teachers-example.json: TEACHER is smt_hf/example, the variants are bptt and stored.
results/teachers-started.json: the same teacher, the variants are stored, started and embeddings.
results/teachers-mixture.json: the same teacher, --cpu-seconds 1800, the variants are stored and mixture.

train: a small Llama of `transformers` that reads bytes, by Trainer; writes its folder.
run: each variant at each seed, into RUNS; finished runs are not run again. Budgets are CPU seconds of one
thread, because a wall clock would measure what else runs on the machine.
table: what the runs in RUNS came to.
"""

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from smt_hf.benchmark.measure import describe_machine
from smt_hf.data import load_data
from smt_hf.data.kinds import bits_per_byte
from smt_hf.pretraining import trainer
from smt_hf.pretraining.assembly import build
from smt_hf.runs.files import one_entry_a_line
from smt_hf.runs.record import RunRecord
from smt_hf.runs.spec import make_spec

LENGTH = 160
TRAINED = "trained.json"
TAUGHT = object()  # stands for the teacher's folder
COMMON: dict[str, Any] = {
    "dataset": "python-docs", "preset": "small", "cell": "gru", "checkpoint_every": 0, "disable_tqdm": True,
    "num_evaluations": 1, "eval_sequences": 256, "eval_horizon": LENGTH, "tokenizer": TAUGHT,
    "teacher_embeddings": False,
}  # fmt: skip
BPTT: dict[str, Any] = {"method": "bptt", "sequence_length": 64, "learning_rate": 1e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "bptt": BPTT,
    "soft": {**BPTT, "teacher": TAUGHT},
    "stored": {**BPTT, "teacher": TAUGHT, "teacher_top": 16},
    "started": {**BPTT, "teacher": TAUGHT, "teacher_top": 16, "teacher_embeddings": True},
    "embeddings": {**BPTT, "teacher": TAUGHT, "teacher_weight": 0.0, "teacher_embeddings": True},
    "mixture": {
        "method": "smt", "sequence_length": 96, "teacher": TAUGHT, "teacher_top": 16, "dmt_gradient_steps": 8,
        "dmt_imitation_weight": 3, "dmt_fraction": 0.15, "bptt_fraction": 0.7, "bptt_learning_rate": 1e-3,
    },
}  # fmt: skip


class Rows(Dataset):
    """The package's rows as Trainer wants them."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]["input_ids"]
        return {"input_ids": row, "labels": row}


def train(folder: Path, steps: int) -> None:
    data = load_data("python-docs", sequence_length=LENGTH)
    config = LlamaConfig(
        vocab_size=len(data.tokenizer), hidden_size=192, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=data.tokenizer.bos_token_id, eos_token_id=data.tokenizer.eos_token_id,
        pad_token_id=data.tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=16, learning_rate=2e-3,
        lr_scheduler_type="cosine", warmup_steps=steps // 20, weight_decay=0.01, logging_steps=100,
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    Trainer(model, args, train_dataset=Rows(data.train)).train()
    model.save_pretrained(folder)
    data.tokenizer.save_pretrained(folder)
    known = {
        "steps": steps, "cpu_seconds": round(time.process_time()),
        "bits_per_byte": round(bits(model, data.validation), 4),
    }  # fmt: skip
    (folder / TRAINED).write_text(json.dumps(known), "utf-8")


@torch.no_grad()
def bits(model: Any, validation: Any) -> float:
    """Bits per byte of a model that reads blocks of LENGTH, as the runs are judged."""
    ids, labels = validation.evaluation_rows(256, LENGTH)
    loss = torch.nn.functional.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten())
    return bits_per_byte(loss.item(), validation.bytes_per_token)


def values_of(name: str, teacher: Path | str) -> dict[str, Any]:
    """The settings of a variant's runs."""
    asked = {**COMMON, **VARIANTS[name]}
    return {key: str(teacher) if value is TAUGHT else value for key, value in asked.items()}


def run(teacher: Path, runs: Path, name: str, seed: int, seconds: float) -> None:
    trainer.time = SimpleNamespace(perf_counter=time.process_time)
    folder = runs / f"{name}-{seed}"
    record = RunRecord.read(folder)
    if record is None or not record.finished:
        spec = {
            **values_of(name, teacher),
            "seed": seed,
            "max_minutes": seconds / 60,
            "output_dir": str(folder),
        }
        build(make_spec(spec)).train(resume=record is not None)


def row_of(name: str, folder: Path) -> dict[str, Any]:
    record = RunRecord.of_finished(folder)
    return {
        "variant": name, "seed": record.seed,
        "bits_per_byte": round(bits_per_byte(record.final["loss"], record.bytes_per_token), 4),
        "cpu_seconds": round(record.seconds, 1), "steps": record.steps, "tokens": record.tokens,
    }  # fmt: skip


def about(teacher: Path) -> dict[str, Any]:
    """What is known of a teacher that `train` made, or of one that is a run of this package."""
    if (teacher / TRAINED).exists():
        return json.loads((teacher / TRAINED).read_text("utf-8"))
    record = RunRecord.of_finished(teacher)
    found = bits_per_byte(record.final["loss"], record.bytes_per_token)
    return {"steps": record.steps, "seconds": round(record.seconds), "bits_per_byte": round(found, 4)}


def table(teacher: Path, runs: Path) -> None:
    rows = [row_of(name, folder) for name in VARIANTS for folder in sorted(runs.glob(f"{name}-[0-9]*"))]
    machine = describe_machine(torch.device("cpu"))
    print(
        one_entry_a_line({"what": "teachers", "machine": machine, "teacher": about(teacher), "rows": rows}),
        end="",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "run", "table"))
    parser.add_argument("teacher", type=Path)
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cpu-seconds", type=float, default=420)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "train":
        return train(args.teacher, args.steps)
    if args.what == "table":
        return table(args.teacher, args.runs)
    for seed in args.seeds:
        for name in args.variants:
            run(args.teacher, args.runs, name, seed, args.cpu_seconds)


if __name__ == "__main__":
    main()
