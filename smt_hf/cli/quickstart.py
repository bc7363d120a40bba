"""Pretrain several cells on text by SMT and DMT, and one on retrieval beside the same by BPTT; compare."""

import argparse
from pathlib import Path
from typing import Any

from smt_hf.runs.spec import RunSpec

from .flags import add_number

# Everything fits into ten minutes on two CPU cores: three cells on text, one cell twice on retrieval.
TEXT_CELLS = ("gru", "mlp", "transformer")
TEXT_MINUTES = 1.0
# A cell and a length at which the two methods differ; a GRU learns retrieval by BPTT too (studies/LOG.md).
TASK_CELL, TASK_LENGTH, TASK_MINUTES = "transformer", 128, 2.2
# The same task, size, batch and length curriculum for both methods.
TASK = {
    "dataset": "retrieval", "sequence_length": TASK_LENGTH, "hidden_size": 64, "batch_size": 32,
    "curriculum_start_length": 16, "eval_sequences": 256,
}  # fmt: skip
TASK_METHODS = {
    "smt": {"num_labels": 16, "dmt_learning_rate": 1.5e-3},
    "bptt": {"learning_rate": 1e-3},
}
PROMPT = "The value of "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output-dir", default="runs/quickstart", help="folder for the runs [runs/quickstart]")
    add_number(parser, "--scale", float, default=1.0, above=0, help="multiply every budget by this [1.0]")
    parser.add_argument("--preset", default="small", help="sizes of the models [small]")
    add_number(parser, "--seed", int, default=0, at_least=0, at_most=2**40, help="of every run [0]")


def plan(args: argparse.Namespace) -> dict[str, RunSpec]:
    """The runs, by the name of their folder."""
    folder = Path(args.output_dir)
    common = {"preset": args.preset, "seed": args.seed, "checkpoint_every": 0, "num_evaluations": 4}
    runs: dict[str, dict[str, Any]] = {
        f"text-{cell}": {"cell": cell, "max_minutes": args.scale * TEXT_MINUTES} for cell in TEXT_CELLS
    }
    for method, settings in TASK_METHODS.items():
        runs[f"retrieval-{TASK_CELL}-{method}"] = {
            "cell": TASK_CELL, "method": method, "max_minutes": args.scale * TASK_MINUTES, **TASK, **settings,
        }  # fmt: skip
    return {
        name: RunSpec.of(**settings, **common, output_dir=str(folder / name)) for name, settings in runs.items()
    }


def run(args: argparse.Namespace) -> int:
    import shlex
    import time

    from smt_hf.pretraining.assembly import build
    from smt_hf.pretraining.stops import Interrupted

    from . import compare, pretrain
    from .loading import plain_console

    began = time.perf_counter()
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output folder {folder} is not empty; choose another with --output-dir.")
    console = plain_console()
    runs = plan(args)
    for spec in runs.values():
        console.print(f"\n{shlex.join(spec.command())}", soft_wrap=True, style="bold")
        try:
            print(pretrain.summary(build(spec).train()))
        except Interrupted as stop:
            print(f"stopped; what is finished is in {folder}. Start anew in another --output-dir.")
            return stop.exit_code

    console.print()
    plot = folder / "learning_curves.png"
    folders = [str(folder / name) for name in runs]
    compare.run(argparse.Namespace(runs=folders, plot=str(plot)))
    for cell in TEXT_CELLS:
        console.print(f"\n{cell} continues “{PROMPT}”:", style="bold")
        console.print(sample(folder / f"text-{cell}", args.seed))
    console.print(f"\nlearning curves: {plot}")
    console.print(f"runs, each with its model card (README.md): {folder}/")
    console.print(f"took {(time.perf_counter() - began) / 60:.1f} minutes")
    return 0


def sample(folder: Path, seed: int) -> str:
    """200 tokens from a run, through nothing but `transformers`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=200, do_sample=True, temperature=0.7)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))
