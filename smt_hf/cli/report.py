"""Print and draw what an experiment found, from its results table alone."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of an experiment, or of several")


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from smt_hf.experiments.report import plot_by_length, results_tables
    from smt_hf.experiments.results import FILE, read_results

    folder: Path = args.folder
    files = [folder / FILE] if (folder / FILE).is_file() else sorted(folder.glob(f"*/{FILE}"))
    tables = {path: rows for path in files if (rows := read_results(path))}
    if not tables:
        raise ValueError(f"{folder} holds no results ({FILE}); give a folder that smt-hf experiment wrote.")
    console = Console(highlight=False)
    for path, rows in tables.items():
        for table in results_tables(rows):
            console.print(table)
        picture = path.with_name(f"{rows[0]['experiment']}.png")
        plot_by_length(rows, picture)
        console.print(f"{picture}", soft_wrap=True)
    return 0
