"""Let the shipped model speak, train a cell on text, and one on retrieval by SMT and by BPTT; compare."""

import argparse
from pathlib import Path
from typing import Any

from smt_hf.runs.spec import RunSpec

from .flags import add_number

# Everything fits into eight minutes on two CPU cores: a cell on text, and one twice on retrieval.
TEXT, TEXT_MINUTES = "text-gru", 2.5
# By BPTT, which is the right tool for text on a CPU, and on pieces of words: so it can be read soonest.
TEXT_SETTINGS = {
    "cell": "gru", "method": "bptt", "tokenizer": "example", "batch_size": 64, "sequence_length": 64,
    "learning_rate": 3e-3,
}  # fmt: skip
# A cell and a length at which the two methods differ; a GRU learns retrieval by BPTT too (studies/LOG.md).
TASK_CELL, TASK_LENGTH, TASK_MINUTES = "transformer", 128, 2.0
# The same task, size, batch and length curriculum for both methods.
TASK = {
    "dataset": "retrieval", "sequence_length": TASK_LENGTH, "hidden_size": 64, "batch_size": 32,
    "curriculum_start_length": 16, "eval_sequences": 256,
}  # fmt: skip
TASK_METHODS = {
    "smt": {"num_labels": 16, "dmt_learning_rate": 1.5e-3},
    "bptt": {"learning_rate": 1e-3},
}
PROMPT = "The value of"
NEXT = """\
Next:
  smt-hf chat                     talk to the model that comes with the package
  smt-hf chat {text}
                                  talk to the one that you just trained
  smt-hf pretrain --preset text --tokenizer example --dataset my_text.txt --max-minutes 10 --output-dir mine
                                  train on a text of yours
  smt-hf export --to web --output-dir page
                                  put the model into a web page that shows its memory"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output-dir", default="runs/quickstart", help="folder for the runs [runs/quickstart]")
    add_number(parser, "--scale", float, default=1.0, above=0, help="multiply every budget by this [1.0]")
    parser.add_argument("--preset", default="small", help="sizes of the models [small]")
    add_number(parser, "--seed", int, default=0, at_least=0, at_most=2**40, help="of every run [0]")


def plan(args: argparse.Namespace) -> dict[str, RunSpec]:
    """The runs, by the name of their folder."""
    folder = Path(args.output_dir)
    common = {"preset": args.preset, "seed": args.seed, "checkpoint_every": 0, "num_evaluations": 4}
    runs: dict[str, dict[str, Any]] = {TEXT: {**TEXT_SETTINGS, "max_minutes": args.scale * TEXT_MINUTES}}
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

    from smt_hf.example import FOLDER as EXAMPLE
    from smt_hf.pretraining.assembly import build
    from smt_hf.pretraining.stops import Interrupted

    from . import compare, pretrain
    from .loading import plain_console

    began = time.perf_counter()
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output folder {folder} is not empty; choose another with --output-dir.")
    console = plain_console()
    console.print(f"The model that comes with smt-hf continues “{PROMPT}”:", style="bold")
    console.print(sample(EXAMPLE, args.seed))
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
    minutes = args.scale * TEXT_MINUTES
    console.print(f"\nAfter {minutes:g} minutes the cell of {TEXT} continues “{PROMPT}”:", style="bold")
    console.print(sample(folder / TEXT, args.seed))
    console.print(f"\nlearning curves: {plot}")
    console.print(f"runs, each with its model card (README.md): {folder}/")
    console.print(f"took {(time.perf_counter() - began) / 60:.1f} minutes\n")
    console.print(NEXT.format(text=folder / TEXT), soft_wrap=True)
    return 0


def sample(folder: Path, seed: int) -> str:
    """80 tokens from a run, through nothing but `transformers`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, min_new_tokens=60, max_new_tokens=80, do_sample=True, temperature=0.6)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))
