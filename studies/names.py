"""Names told at the start of a document and asked for at its end: does a cell carry one through a text?

    python studies/names.py run RUNS smt bptt-0.001 --cell transformer --seeds 0 --cpu-seconds 600
    python studies/names.py table RUNS > results/names.json

A document is "Name: Clara", a stretch of python-docs and "Name: Clara" again, as bytes. The name's first
letter, where it is asked for, is the one target; the score is how often the model, free-running from a cold
start, gives most to the right one of the sixteen. Budgets are CPU seconds of one thread, because a wall clock
would measure what else runs on the machine.
"""

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from smt_hf.benchmark.measure import describe_machine
from smt_hf.data import load_data
from smt_hf.data.dataset import IGNORE, StackedRows
from smt_hf.experiments.recipe import TASK, TASK_SMT
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.pretraining import trainer
from smt_hf.pretraining.assembly import model_config, teacher_of
from smt_hf.runs.files import one_entry_a_line
from smt_hf.runs.record import RunRecord
from smt_hf.runs.spec import make_spec

NAMES = [
    *("Alice", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry"),
    *("Irene", "James", "Karin", "Louis", "Maria", "Nadia", "Oscar", "Peter"),
]
LONG = len(NAMES[0])
TOLD = "Name: {}\n"
ASKED = "\nName: {}"
TESTED = 512  # documents
RESULT = "names.json"
COMMON: dict[str, Any] = {
    **TASK, "preset": "small", "dataset": "python-docs", "checkpoint_every": 0, "disable_tqdm": True,
    "num_evaluations": 4, "curriculum_start_length": 32, "rollout_length": 128,
}  # fmt: skip
SMT: dict[str, Any] = {**TASK_SMT, "method": "smt", "dmt_learning_rate": 3e-4, "dmt_label_every": 4}
TOKENS_OF_A_STEP = 2048


class Documents(StackedRows):
    """Rows of one document each. texts: the rows of a corpus, at least as long."""

    kind = "task"
    name = "names in python-docs"
    vocab_size = 258
    fingerprint = None
    bytes_per_token = None

    def __init__(self, texts: Any, sequence_length: int):
        self.texts, self.sequence_length = texts.at_length(sequence_length), sequence_length
        codes = [[list(where.format(name).encode()) for name in NAMES] for where in (TOLD, ASKED)]
        self.told, self.asked = map(torch.tensor, codes)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitems__(self, indices: Any) -> dict[str, torch.Tensor]:
        rows = self.texts.__getitems__(indices)
        ids = torch.cat([rows["input_ids"], rows["shift_labels"][:, -1:]], 1)
        who = torch.tensor([(int(index) * 2654435761 >> 7) % len(NAMES) for index in indices])
        ids[:, : self.told.shape[1]] = self.told[who]
        ids[:, -self.asked.shape[1] :] = self.asked[who]
        labels = torch.full_like(ids[:, 1:], IGNORE)
        labels[:, -LONG] = ids[:, -LONG]
        return {"input_ids": ids[:, :-1], "shift_labels": labels}

    def at_length(self, sequence_length: int) -> "Documents":
        return Documents(self.texts, sequence_length)


@torch.no_grad()
def accuracy(model: SMTForCausalLM, documents: Documents) -> float:
    """How often the right first letter is the most probable of the sixteen, free-running from a cold start."""
    letters = documents.told[:, TOLD.index("{")]
    every = max(1, len(documents) // TESTED)
    right = []
    for first in range(0, TESTED * every, 64 * every):
        rows = documents.__getitems__(range(first, min(len(documents), first + 64 * every), every))
        logits = model(rows["input_ids"]).logits[:, -LONG, letters]
        right.append(letters[logits.argmax(-1)] == rows["shift_labels"][:, -LONG])
    return torch.cat(right).double().mean().item()


def run(folder: Path, variant: str, cell: str, length: int, seed: int, seconds: float) -> None:
    trainer.time = SimpleNamespace(perf_counter=time.process_time)
    method, _, rate = variant.partition("-")
    given = SMT if method == "smt" else {"method": "bptt", "learning_rate": float(rate)}
    spec = make_spec({
        **COMMON, **given, "cell": cell, "seed": seed, "sequence_length": length, "max_minutes": seconds / 60,
        "batch_size": max(1, TOKENS_OF_A_STEP // length), "output_dir": str(folder),
    })  # fmt: skip
    data = load_data("python-docs", sequence_length=length)
    train, tested = Documents(data.train, length), Documents(data.validation, length)
    torch.manual_seed(seed)
    model = SMTForCausalLM(model_config(spec, train.vocab_size))
    lengths = {"context_length": length, "future_length": length}
    teacher = teacher_of(spec, None, train.vocab_size, **lengths) if method == "smt" else None
    record = RunRecord.read(folder)
    if record is not None and record.finished:  # it was stopped while it was judged
        model = SMTForCausalLM.from_pretrained(folder)
    else:
        record = trainer.SMTPretrainer(model, teacher, spec, train, tested, data.tokenizer).train()
    row = {
        "cell": cell, "length": length, "method": method, "learning_rate": spec.learning_rate, "seed": seed,
        "accuracy": round(accuracy(model.eval(), tested), 4), "cpu_seconds": round(record.seconds, 1),
        "steps": record.steps, "tokens": record.tokens, "sequential_steps": record.sequential_steps,
        "processor": describe_machine(torch.device("cpu"))["processor"],
    }  # fmt: skip
    (folder / RESULT).write_text(json.dumps(row), "utf-8")


def table(runs: Path) -> None:
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(runs.glob(f"*/{RESULT}"))]
    machine = describe_machine(torch.device("cpu"))
    print(one_entry_a_line({"what": "names", "machine": machine, "rows": rows}), end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("runs", type=Path)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="smt, or bptt-RATE")
    parser.add_argument("--cell", default="transformer")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cpu-seconds", type=float, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "table":
        return table(args.runs)
    for seed in args.seeds:
        for variant in args.variants:
            folder = args.runs / f"{args.cell}-{args.length}-{variant}-{seed}"
            if not (folder / RESULT).exists():
                run(folder, variant, args.cell, args.length, seed, args.cpu_seconds)


if __name__ == "__main__":
    main()
