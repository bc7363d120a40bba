"""Run an experiment: SMT then DMT beside BPTT of the same cells, at equal budgets, into one results table.

A run that is finished is not run again, and an interrupted one goes on from its checkpoint: the same command,
given again, completes the experiment.
"""

import argparse
from pathlib import Path
from typing import Any

from smt_hf.experiments import EXPERIMENTS, Recipe, Run, plan

# Beside the recipe's arguments. Often enough that a killed run loses a minute or two.
RUNNING = {"checkpoint-every": 200, "save-total-limit": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name}: {recipe.about}" for name, recipe in EXPERIMENTS.items())
    parser.add_argument("name", metavar="NAME", help=listed.replace("%", "%%"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run of everything for each [0]")
    parser.add_argument("--lengths", type=int, nargs="+", help="training lengths [the recipe's shortest]")
    parser.add_argument("--cells", nargs="+", help="cells, by name or as module:Class [the recipe's]")
    parser.add_argument("--max-minutes", type=float, help="budget of each run [the recipe's]")
    parser.add_argument(
        "--variants", nargs="*", metavar="NAME",
        help="run these of its variants, or none, beside the recipe as it is [all]",
    )  # fmt: skip
    parser.add_argument(
        "--bptt-learning-rates", type=float, nargs="+", help="BPTT is run with each [the recipe's]"
    )
    parser.add_argument(
        "--set", nargs="+", metavar="NAME=VALUE", default=[], dest="changes",
        help="arguments of pretrain that win over the recipe's: hidden-size=256 batch-size=128",
    )  # fmt: skip
    parser.add_argument("--output-dir", type=Path, help="folder of the runs [runs/experiments/NAME]")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from smt_hf.experiments.probes import write_probes
    from smt_hf.pretraining.trainer import Interrupted, NonFiniteLossError
    from smt_hf.runs.results import FILE, read_results, write_results

    from . import report
    from .loading import quiet, use_cell

    quiet()
    recipe = recipe_of(args.name)
    folder: Path = args.output_dir or Path("runs", "experiments", args.name)
    table = folder / FILE
    read_results(table)  # raises now if it is another version's
    runs = plan(
        recipe, args.lengths, args.cells, args.seeds, args.max_minutes, args.bptt_learning_rates,
        changes_of(args.changes), args.variants,
    )  # fmt: skip
    parsed = [parse(folder, one) for one in runs]  # a wrong argument is refused before any run
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{args.name}: {len(runs)} runs, {budget_of(runs)} of training together")
    for number, (one, run_args) in enumerate(zip(runs, parsed, strict=True), start=1):
        console.print(f"\n[bold]{number}/{len(runs)} {one.name}[/bold]")
        try:
            train(run_args)
        except Interrupted as stop:
            print(f"stopped; saved {stop}. The same command goes on from there.")
            return 130
        except NonFiniteLossError as error:
            print(f"{one.name} diverged and gives no result: {error}")
            continue
        there = any(row["run"] == one.name for row in read_results(table))
        if not (run_args.finished and there):
            found = evaluate(args.name, folder, one)
            # As the table is now: another process may have written its runs while this one trained.
            others = [row for row in read_results(table) if row["run"] != one.name]
            write_results(table, others + found)
        use_cell(run_args.cell)
        write_probes(folder / one.name)
    console.print()
    report.run(argparse.Namespace(folder=folder))
    equal_budgets(folder, read_results(table), console)
    return 0


def budget_of(runs: list[Run]) -> str:
    """What all runs may use, in the units of their budgets."""
    units = ("minutes", "steps")
    totals = {unit: sum(float(one.arguments.get(f"max-{unit}", 0)) for one in runs) for unit in units}
    return " and ".join(f"{total:,g} {unit}" for unit, total in totals.items() if total)


def recipe_of(name: str) -> Recipe:
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]


def changes_of(words: list[str]) -> dict[str, str]:
    changes = dict(word.split("=", 1) for word in words if "=" in word)
    if len(changes) != len(words):
        raise ValueError(f"--set {' '.join(words)} must be NAME=VALUE pairs, each name once.")
    return {name.replace("_", "-"): value for name, value in changes.items()}


def parse(folder: Path, one: Run) -> argparse.Namespace:
    """The arguments of `smt-hf pretrain` for a run, resuming if it was begun.

    Raises ValueError if the folder has the run with other arguments; of a task, whose models are quickly
    made, for all that would not let it start, and for a length that it cannot be tested at.
    """
    from smt_hf.data.tasks import is_task, make_task
    from smt_hf.pretraining.run_folder import read_record

    from . import build_parser, pretrain

    extra = [word for name, value in RUNNING.items() for word in (f"--{name}", str(value))]
    command = ["pretrain", *one.words, *extra, "--output-dir", str(folder / one.name)]
    args = build_parser().parse_args(command)
    args.words = command
    if is_task(args.dataset):
        pretrain.build(args)
        for length in one.tested:
            make_task(args.dataset, length)
    record = read_record(folder / one.name)
    if record is not None and record["command"][1:-1] != command[:-1]:
        words, others = record["command"][1:-1], command[:-1]
        old, new = (" ".join(w for w in a if w not in b) for a, b in ((words, others), (others, words)))
        raise ValueError(
            f"the run in {folder / one.name} was made with other arguments ({old or 'fewer'}, now "
            f"{new or 'fewer'}); choose another --output-dir."
        )
    args.resume = record is not None
    args.finished = record is not None and record["status"] == "finished"
    return args


def train(args: argparse.Namespace) -> None:
    from . import pretrain

    if args.finished:
        print(f"{args.output_dir} is finished")
    else:
        pretrain.train(args)


def evaluate(experiment: str, folder: Path, one: Run) -> list[dict[str, Any]]:
    """Test a finished run at the lengths of its recipe, as `smt-hf evaluate` does."""
    from smt_hf.pretraining.run_folder import read_record
    from smt_hf.runs.results import rows_of_run

    from . import build_parser
    from .evaluate import measure
    from .loading import load_model

    lengths = ["--lengths", *map(str, one.tested)] if one.tested else []
    args = build_parser().parse_args(["evaluate", str(folder / one.name), *lengths])
    if ":" in one.arguments["cell"]:
        args.cell = one.arguments["cell"]
    data, metrics = measure(args, *load_model(args))
    record = read_record(folder / one.name)
    assert record is not None
    chance = data.validation.chance if data.kind == "task" else None
    return rows_of_run(experiment, one.name, one.length, record, metrics, chance, one.variant)


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
