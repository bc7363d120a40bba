"""Print and draw what experiments and benchmarks found, from their stored results alone.

Prints the tables, draws each picture as a PNG beside its results, and puts everything on one page, report.html,
in DIR. Reads the studies in DIR, DIR/NAME and DIR/experiments/NAME, and benchmark-*.json in DIR. A study is
what smt-hf experiment leaves, or the few small files that --pack makes of it for a repository.
"""

import argparse
from pathlib import Path
from typing import Any

PAGE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="folder of an experiment, of several, or of benchmark records"
    )
    parser.add_argument(
        "--pack",
        metavar="NEW",
        type=Path,
        help="write the one study in DIR to the new folder NEW, and draw nothing",
    )
    parser.add_argument(
        "--update", metavar="FILE", type=Path, nargs="+",
        help="make the tables of these Markdown files anew, between <!-- table: NAME --> and <!-- end -->, "
        "and draw nothing",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from smt_hf.experiments.recipes import EXPERIMENTS
    from smt_hf.reporting.groups import place
    from smt_hf.reporting.packed import find_studies, read_study

    folder: Path = args.folder
    found = [study for path in find_studies(folder) if (study := read_study(path)) is not None]
    studies = sorted(found, key=lambda study: place(study.rows, list(EXPERIMENTS)))
    if not studies and not any(folder.glob("benchmark-*.json")):
        raise ValueError(
            f"{folder} holds no results (results.csv, runs.csv or benchmark-*.json); give a folder that smt-hf "
            "experiment, smt-hf report --pack or smt-hf benchmark wrote."
        )
    # An experiment gives a folder alone.
    pack, update = getattr(args, "pack", None), getattr(args, "update", None)
    if pack and update:
        raise ValueError("--pack and --update are two tasks; give one of them.")
    if pack:
        return pack_one(folder, studies, pack)
    if update:
        return update_pages(folder, studies, update)
    return draw(folder, studies)


def pack_one(folder: Path, studies: list[Any], target: Path) -> int:
    from smt_hf.reporting.packed import pack

    if len(studies) != 1:
        raise ValueError(f"--pack takes one study, and {folder} holds {len(studies)}; name the folder of one.")
    pack(studies[0], target)
    print(f"{len(studies[0].runs)} runs in {target}")
    return 0


def update_pages(folder: Path, studies: list[Any], paths: list[Path]) -> int:
    from smt_hf.experiments.recipes import EXPERIMENTS
    from smt_hf.reporting.markers import update
    from smt_hf.reporting.tables import tables_of

    changed = update(paths, tables_of(folder, studies, list(EXPERIMENTS)))
    print(f"{len(changed)} of {len(paths)} files changed" + "".join(f"\n{path}" for path in changed))
    return 0


def draw(folder: Path, studies: list[Any]) -> int:
    from smt_hf.experiments.recipes import EXPERIMENTS
    from smt_hf.reporting.console import results_tables

    from .loading import plain_console

    console = plain_console()
    for study in studies:
        for table in results_tables(study.rows):
            console.print(table)
    try:
        import matplotlib  # noqa: F401  # what follows needs it
    except ImportError as error:
        raise ValueError(
            "the pictures need matplotlib; install it with pip install 'smt-hf[report]'."
        ) from error
    from smt_hf.reporting import model_pictures, speed, training_pictures
    from smt_hf.reporting.drawing import is_ours, pictures_of, save_png
    from smt_hf.reporting.page import MARK, page
    from smt_hf.runs.files import write_atomic

    benchmarks = speed.read_benchmarks(folder)  # everything is read before anything is written
    drawn = [(one, pictures_of(one, training_pictures.DRAW + model_pictures.DRAW)) for one in studies]
    clocked = {
        name: (record, speed.DRAW[record["what"]](record["rows"])) for name, record in benchmarks.items()
    }
    files = {
        one.folder / f"{one.name}{'' if picture.name == 'score' else f'-{picture.name}'}.png": picture
        for one, pictures in drawn
        for picture in pictures
    }
    files |= {folder / f"{name}.png": picture for name, (_, picture) in clocked.items() if picture is not None}
    others = [path for path in files if path.is_file() and not is_ours(path)]
    target = folder / PAGE
    if target.is_file() and MARK not in target.read_text(encoding="utf-8", errors="replace")[:2000]:
        others.append(target)
    if others:
        raise FileExistsError(f"{others[0]} exists and no report of smt-hf drew it; move it away.")
    text = page(drawn, clocked, {name: one.about for name, one in EXPERIMENTS.items()})
    for path, picture in files.items():
        save_png(picture, path)
    write_atomic(target, text)
    console.print(f"{len(files)} pictures beside the results, and all of it on one page:")
    console.print(f"{target}", soft_wrap=True)
    return 0
