"""Print and draw what experiments and benchmarks found, from their stored results alone.

Prints the tables, draws each picture as a PNG beside its results, and puts everything on one page, report.html,
in DIR. Reads the experiments in DIR, DIR/NAME and DIR/experiments/NAME, and benchmark-*.json in DIR.
"""

import argparse
from pathlib import Path

PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="folder of an experiment, of several, or of benchmark records"
    )


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from smt_hf.experiments.report import place, results_tables
    from smt_hf.experiments.results import FILE, read_results

    folder: Path = args.folder
    files = [path for depth in ("", "*/", "experiments/*/") for path in sorted(folder.glob(f"{depth}{FILE}"))]
    found = {path: rows for path in dict.fromkeys(files) if (rows := read_results(path))}
    tables = dict(sorted(found.items(), key=lambda item: place(item[1])))
    if not tables and not any(folder.glob("benchmark-*.json")):
        raise ValueError(
            f"{folder} holds no results ({FILE} or benchmark-*.json); give a folder that smt-hf experiment or "
            "smt-hf benchmark wrote."
        )
    console = Console(highlight=False)
    for rows in tables.values():
        for table in results_tables(rows):
            console.print(table)
    try:
        import matplotlib  # noqa: F401  # what follows needs it
    except ImportError as error:
        raise ValueError(
            "the pictures need matplotlib; install it with pip install 'smt-hf[report]'."
        ) from error
    draw(folder, list(tables), console)
    return 0


def draw(folder: Path, tables: list[Path], console) -> None:
    from smt_hf.experiments.drawing import save_png
    from smt_hf.experiments.findings import read_experiment
    from smt_hf.experiments.page import page
    from smt_hf.experiments.pictures import pictures_of
    from smt_hf.experiments.speed import DRAW, read_benchmarks
    from smt_hf.runs.files import write_atomic

    experiments = [one for path in tables if (one := read_experiment(path)) is not None]
    benchmarks = read_benchmarks(folder)  # everything is read before anything is written
    drawn = [(one, pictures_of(one)) for one in experiments]
    clocked = {name: (record, DRAW[record["what"]](record["rows"])) for name, record in benchmarks.items()}
    count = 0
    for one, pictures in drawn:
        for picture in pictures:
            ending = "" if picture.name == "score" else f"-{picture.name}"
            save_png(picture, one.folder / f"{one.name}{ending}.png")
            count += 1
    for name, (_, speed) in clocked.items():
        if speed is not None:
            save_png(speed, folder / f"{name}.png")
            count += 1
    write_atomic(folder / PAGE, page(drawn, clocked))
    console.print(f"{count} pictures beside the results, and all of it on one page:")
    console.print(f"{folder / PAGE}", soft_wrap=True)
