"""Run an experiment: SMT then DMT beside BPTT of the same cells, at equal budgets, into one results table.

A run that is finished is not run again, and an interrupted one goes on from its checkpoint: the same command,
given again, completes the experiment.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

from smt_hf.experiments.recipe import Recipe, Run, plan
from smt_hf.experiments.recipes import EXPERIMENTS

from .flags import add_number

# What no change may set: the runs are named and tested by these.
OF_FLAGS = {
    "cell": "--cells", "seed": "--seeds", "sequence_length": "--lengths", "max_minutes": "--max-minutes",
    "output_dir": "--output-dir",
}  # fmt: skip
OF_RECIPE = ("method", "dataset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name}: {recipe.about}" for name, recipe in EXPERIMENTS.items())
    parser.add_argument("name", metavar="NAME", help=listed.replace("%", "%%"))
    add_number(
        parser, "--seeds", int, nargs="+", default=[0], at_least=0, at_most=2**40,
        help="one run of everything for each [0]",
    )  # fmt: skip
    add_number(parser, "--lengths", int, nargs="+", at_least=2, help="training lengths [the recipe's shortest]")
    parser.add_argument("--cells", nargs="+", help="cells, by name or as module:Class [the recipe's]")
    add_number(parser, "--max-minutes", float, above=0, help="budget of each run [the recipe's]")
    parser.add_argument(
        "--variants", nargs="*", metavar="NAME",
        help="run these of its variants, or none, beside the recipe as it is [all]",
    )  # fmt: skip
    add_number(
        parser, "--bptt-learning-rates", float, nargs="+", above=0, help="BPTT is run with each [the recipe's]"
    )
    parser.add_argument(
        "--set", nargs="+", metavar="NAME=VALUE", default=[], dest="changes",
        help="arguments of pretrain that win over the recipe's, learning-rate for SMT alone: hidden-size=256 "
        "batch-size=128",
    )  # fmt: skip
    parser.add_argument(
        "--runs", nargs="+", metavar="RUN", help="of all these runs, carry out only some, by name"
    )
    parser.add_argument(
        "--list", action="store_true",
        help="print one command for each run, which other machines can carry out into the same folder",
    )  # fmt: skip
    parser.add_argument("--output-dir", type=Path, help="folder of the runs [runs/experiments/NAME]")


def run(args: argparse.Namespace) -> int:
    if args.name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {args.name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    folder: Path = args.output_dir or Path("runs", "experiments", args.name)
    runs = chosen_runs(args, EXPERIMENTS[args.name])
    if args.list:
        words = [word for word in args.words if word != "--list"]
        for one in runs:
            print(shlex.join(["smt-hf", *without_runs(words), "--runs", one.name]))
        return 0
    return carry_out(args.name, folder, runs)


def chosen_runs(args: argparse.Namespace, recipe: Recipe) -> list[Run]:
    changes = changes_of(args.changes)
    if args.max_minutes is not None and "max_steps" in changes:
        raise ValueError(
            f"--max-minutes is {args.max_minutes:g} and --set has max_steps {changes['max_steps']}; give one."
        )
    runs = plan(
        recipe, args.lengths, args.cells, args.seeds, args.max_minutes, args.bptt_learning_rates, changes,
        args.variants,
    )  # fmt: skip
    names = [one.name for one in runs]
    if unknown := [name for name in args.runs or [] if name not in names]:
        raise ValueError(f"unknown run {unknown[0]!r}; the runs of these arguments are {', '.join(names)}.")
    return [one for one in runs if args.runs is None or one.name in args.runs]


def without_runs(words: list[str]) -> list[str]:
    """A command line without its --runs."""
    if "--runs" not in words:
        return words
    start = words.index("--runs")
    rest = [i for i in range(start + 1, len(words)) if words[i].startswith("--")]
    return words[:start] + (words[rest[0] :] if rest else [])


def carry_out(name: str, folder: Path, runs: list[Run]) -> int:
    from rich.console import Console

    from smt_hf.experiments import runner
    from smt_hf.pretraining.stops import Interrupted
    from smt_hf.runs.results import FILE, read_results

    from . import report
    from .loading import quiet
    from .network import ask_for_data

    quiet()
    for one in runs:
        spec = runner.spec_of(folder, one)
        ask_for_data(spec.dataset, spec.tokenizer, spec.image_column, spec.teacher)
    runner.check(folder, runs)  # a wrong argument is refused before any run
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{name}: {len(runs)} runs, {budget_of(runs)} of training together")
    for number, one in enumerate(runs, start=1):
        console.print(f"\n[bold]{number}/{len(runs)} {one.name}[/bold]")
        try:
            print(runner.one_run(name, folder, one))
        except Interrupted as stop:
            print(f"stopped; saved {stop}. The same command goes on from there.")
            return stop.exit_code
    console.print()
    report.run(argparse.Namespace(folder=folder))
    equal_budgets(folder, read_results(folder / FILE), console)
    return 0


def budget_of(runs: list[Run]) -> str:
    """What all runs may use, in the units of their budgets."""
    units = ("minutes", "steps")
    totals = {unit: sum(float(one.arguments.get(f"max_{unit}", 0)) for one in runs) for unit in units}
    return " and ".join(f"{total:,g} {unit}" for unit, total in totals.items() if total)


def changes_of(words: list[str]) -> dict[str, Any]:
    from smt_hf.runs.spec import checked

    changes = dict(word.split("=", 1) for word in words if "=" in word)
    if len(changes) != len(words):
        raise ValueError(f"--set {' '.join(words)} must be NAME=VALUE pairs, each name once.")
    values = checked(changes, "--set: ")
    for name in values:
        if name in OF_FLAGS:
            raise ValueError(f"--set {name}={values[name]} is not for experiments; use {OF_FLAGS[name]}.")
        if name in OF_RECIPE:
            raise ValueError(f"--set {name}={values[name]} would make it another experiment; leave {name} out.")
    return values


def equal_budgets(folder: Path, rows: list[dict[str, Any]], console: Any) -> None:
    """SMT, without variants, beside the best BPTT of the same cell at equal time, tokens, sequential steps."""
    from smt_hf.reporting.comparison import equal_budget_table, read_runs
    from smt_hf.reporting.groups import best_groups, by_training_length, group_key

    names = []
    for part in by_training_length(rows).values():
        part = [row for row in part if not row["variant"]]
        best = best_groups(part)
        names += list(dict.fromkeys(row["run"] for row in part if group_key(row) in best))
    there = [folder / name for name in names if (folder / name).is_dir()]
    table = equal_budget_table(read_runs(there))
    if table is not None:
        console.print(table)
