"""Pretrain several cells on text by SMT and DMT, and one on retrieval beside the same by BPTT; compare."""

import argparse
from pathlib import Path

# Everything fits into ten minutes on two CPU cores: three cells on text, one cell twice on retrieval.
TEXT_CELLS = ("gru", "mlp", "transformer")
TEXT_MINUTES = 1.6
TASK_CELL, TASK_LENGTH, TASK_MINUTES = "gru", 256, 1.5
PROMPT = "The value of "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output-dir", default="runs/quickstart", help="folder for the runs [runs/quickstart]")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply every budget by this [1.0]")
    parser.add_argument("--preset", default="small", help="sizes of the models [small]")
    parser.add_argument("--seed", type=int, default=0, help="of every run [0]")


def plan(args: argparse.Namespace) -> dict[str, list[str]]:
    """The arguments of `smt-hf pretrain` for each run, by the name of its folder."""
    common = ["--preset", args.preset, "--seed", str(args.seed), "--checkpoint-every", "0"]
    runs = {
        f"text-{cell}": ["--cell", cell, "--max-minutes", f"{args.scale * TEXT_MINUTES:g}", *common]
        for cell in TEXT_CELLS
    }
    for method in ("smt", "bptt"):
        runs[f"retrieval-{TASK_CELL}-{method}"] = [
            "--cell", TASK_CELL, "--method", method, "--max-minutes", f"{args.scale * TASK_MINUTES:g}",
            *task_arguments(TASK_LENGTH), *common,
        ]  # fmt: skip
    return runs


def task_arguments(length: int) -> list[str]:
    """How retrieval is trained here, the same for both methods: length curriculum, larger batch."""
    return [
        "--dataset", "retrieval", "--sequence-length", str(length), "--batch-size", "32",
        "--curriculum-start-length", "32", "--num-evaluations", "6",
    ]  # fmt: skip


def run(args: argparse.Namespace) -> int:
    import shlex
    import time

    from rich.console import Console

    from . import build_parser, compare, pretrain

    began = time.perf_counter()
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output folder {folder} is not empty; choose another with --output-dir.")
    console = Console(highlight=False)
    parser = build_parser()
    runs = plan(args)
    for name, words in runs.items():
        command = ["pretrain", *words, "--output-dir", str(folder / name)]
        console.print(f"\n[bold]smt-hf {shlex.join(command)}[/bold]", soft_wrap=True)
        pretrain.run(parser.parse_args(command))

    console.print()
    plot = folder / "learning_curves.png"
    folders = [str(folder / name) for name in runs]
    compare.run(argparse.Namespace(runs=folders, plot=str(plot)))
    for cell in TEXT_CELLS:
        console.print(f"\n[bold]{cell}[/bold] continues “{PROMPT}”:")
        console.print(sample(folder / f"text-{cell}", args.seed), markup=False)
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
