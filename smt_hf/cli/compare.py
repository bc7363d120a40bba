"""Tabulate and plot finished runs side by side, each with its free-running figures and its costs."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--plot", metavar="PNG", help="also draw the learning curves (needs matplotlib)")


def run(args: argparse.Namespace) -> int:
    from smt_hf.reporting.comparison import (
        comparison_tables,
        equal_budget_table,
        plot_learning_curves,
        read_runs,
    )

    from .loading import new_file, plain_console

    if args.plot:
        new_file("--plot", args.plot)
    runs = read_runs([Path(path) for path in args.runs])
    console = plain_console()
    for table in comparison_tables(runs):
        console.print(table)
    equal = equal_budget_table(runs)
    if equal is not None:
        console.print(equal)
    if args.plot:
        plot_learning_curves(runs, Path(args.plot))
    return 0
