"""The packed form of a study, for a repository: a few kilobytes a run, and no raw logs.

runs.csv         a row for each run: what it was, what it cost, how it was made
scores.csv       a row for each length that a run was tested at, or each horizon of text and images
evaluations.csv  a row for each evaluation while a run was trained
probes.json      an entry for each run that was probed; memories and images only where a picture shows them

`pack` writes it from a live folder (`smt-hf report FOLDER --pack NEW`), and `read_study` reads either form.
"""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from smt_hf.runs.files import one_entry_a_line, write_atomic
from smt_hf.runs.results import COLUMNS, FILE, FORMAT, from_table, in_table

from .findings import shown_runs
from .study import PROBES, PROBES_FORMAT, Evaluation, Record, Run, Study, read_live, read_probes

RUNS, SCORES, EVALUATIONS = "runs.csv", "scores.csv", "evaluations.csv"
PACKED = (RUNS, SCORES, EVALUATIONS, PROBES)
OF_THE_TABLE = ("experiment", "run", "task", "cell", "method", "variant", "seed", "learning_rate",
                "length_trained", "metric", "chance")  # fmt: skip
OF_THE_RECORD = tuple(
    one.name for one in fields(Record) if one.name not in {*OF_THE_TABLE, "dataset", "status", "final"}
)
# What a column holds; those that are not named hold whole numbers.
KINDS: dict[str, type] = {
    **{name: float for name in ("learning_rate", "chance", "max_minutes", "bytes_per_token", "seconds")},
    **{name: float for name in ("progress", "value")},
    **{name: str for name in ("experiment", "run", "task", "cell", "method", "variant", "metric", "data_kind")},
    **{name: str for name in ("data_fingerprint", "phases", "machine", "versions", "command", "commit")},
    **{name: str for name in ("phase", "drift")},
}
RUN_COLUMNS = (*OF_THE_TABLE, *OF_THE_RECORD)
SCORE_COLUMNS = ("run", "length_tested", "value")
EVALUATION_COLUMNS = ("run", *(one.name for one in fields(Evaluation)))


def find_studies(folder: Path) -> list[Path]:
    """Folders of studies, live or packed: `folder` itself, those in it, and those in its `experiments`."""
    names = (FILE, *PACKED[:3])
    found = [
        path.parent
        for depth in ("", "*/", "experiments/*/")
        for path in sorted(path for name in names for path in folder.glob(f"{depth}{name}"))
    ]
    return list(dict.fromkeys(found))


def read_study(folder: Path) -> Study | None:
    """The study in a folder, live or packed; None if its table has no rows.

    Raises ValueError for both forms in one folder, for a packed form that lacks a file or contradicts itself,
    for a table or probes of another version, and for a file that is not JSON.
    """
    packed = [name for name in PACKED[:3] if (folder / name).is_file()]
    if packed and (folder / FILE).is_file():
        raise ValueError(
            f"{folder} holds a live study ({FILE}) and a packed one ({packed[0]}); move one of them."
        )
    return read_packed(folder) if packed else read_live(folder)


def pack(study: Study, folder: Path) -> None:
    """Write the packed form of a study into a new folder, whole or not at all.

    Raises FileExistsError if the folder exists, and ValueError for a run that is not finished, that has no
    run.json or no evaluations.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; name a new folder.")
    for name, run in study.runs.items():
        if run.record is None:
            raise ValueError(f"{study.folder / name} has no run.json; a packed study needs that of every run.")
        if run.record.status != "finished":
            raise ValueError(f"the run in {study.folder / name} is {run.record.status}; finish it first.")
        if not run.evaluations:
            raise ValueError(f"{study.folder / name} has no evaluations (metrics.jsonl); it cannot be packed.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    first = {row["run"]: row for row in reversed(study.rows)}
    runs = [
        {**{name: getattr(run.record, name) for name in OF_THE_RECORD},
         **{name: first[run.name][name] for name in ("seconds", *OF_THE_TABLE)}}
        for run in study.runs.values()
    ]  # fmt: skip
    evaluations = [
        {**vars(one), "run": run.name, "seconds": f"{one.seconds:.3f}", "value": f"{one.value:.9g}",
         "progress": "" if one.progress is None else f"{one.progress:.3f}",
         "drift": " ".join(f"{horizon}:{value:.3g}" for horizon, value in one.drift.items())}
        for run in study.runs.values() for one in run.evaluations
    ]  # fmt: skip
    scores = [{**row, "value": f"{row['value']:.9g}"} for row in study.rows]
    write_atomic(part / RUNS, table(RUN_COLUMNS, runs))
    write_atomic(part / SCORES, table(SCORE_COLUMNS, scores))
    write_atomic(part / EVALUATIONS, table(EVALUATION_COLUMNS, evaluations))
    write_atomic(part / PROBES, one_entry_a_line({"format": PROBES_FORMAT, "runs": probes_of(study)}))
    part.rename(folder)


def table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    texts = {name for name in columns if KINDS.get(name) is str}  # the others are numbers, also as text
    writer.writerows(
        {name: in_table(value) if name in texts or value is None else value for name, value in row.items()}
        for row in rows
    )
    return file.getvalue()


def probes_of(study: Study) -> dict[str, Any]:
    """The probes of all runs that have any, rounded; large ones only of the runs that pictures show."""
    shown = {(run.name, probe) for probe in ("memory_map", "images") for _, _, run in shown_runs(study, probe)}
    found = {}
    for run in study.runs.values():
        if run.probes is None:
            continue
        kept = {name: value for name, value in run.probes.items() if name != "format" and value is not None}
        for probe in ("memory_map", "images"):
            if (run.name, probe) not in shown:
                kept.pop(probe, None)
        for name, digits in (("teacher", 6), ("prompt", 6), ("gradient_reach", 4), ("memory_map", 3)):
            if name in kept:
                kept[name] = rounded(kept[name], digits)
        found[run.name] = kept
    return found


def rounded(value: Any, digits: int) -> Any:
    """The same, with every float in it to so many significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, list):
        return [rounded(one, digits) for one in value]
    return {name: rounded(one, digits) for name, one in value.items()} if isinstance(value, dict) else value


def read_packed(folder: Path) -> Study | None:
    for name in PACKED:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} lacks {name} of a packed study ({', '.join(PACKED)}); pack it again.")
    listed = read_columns(folder / RUNS, RUN_COLUMNS)
    scored = read_columns(folder / SCORES, SCORE_COLUMNS)
    evaluated = read_columns(folder / EVALUATIONS, EVALUATION_COLUMNS)
    probes = read_probes(folder / PROBES)["runs"]
    names = [row["run"] for row in listed]
    refuse_twice(folder / RUNS, names)
    refuse_twice(folder / SCORES, [f"{row['run']} at {row['length_tested']}" for row in scored])
    for name, others in ((SCORES, scored), (EVALUATIONS, evaluated)):
        if strange := {row["run"] for row in others} - set(names):
            raise ValueError(f"{folder / name} names the run {min(strange)}, which {RUNS} does not list.")
    if strange := set(probes) - set(names):
        raise ValueError(f"{folder / PROBES} names the run {min(strange)}, which {RUNS} does not list.")
    if unscored := set(names) - {row["run"] for row in scored}:
        raise ValueError(f"{folder / SCORES} has no score of the run {min(unscored)}, which {RUNS} lists.")
    runs: dict[str, Run] = {}
    curves: dict[str, list[Evaluation]] = {name: [] for name in names}
    for row in evaluated:
        pairs = (pair.split(":") for pair in row["drift"].split())
        row["drift"] = {int(horizon): float(value) for horizon, value in pairs}
        curves[row.pop("run")].append(Evaluation(**row))
    by_name = {row["run"]: row for row in listed}
    for name, row in by_name.items():
        both = (*OF_THE_RECORD, "cell", "method", "seed", "learning_rate")
        record = Record(dataset=row["task"], **{one: row[one] for one in both})
        runs[name] = Run(name, record, curves[name], probes.get(name))
    rows = [{"format": FORMAT, **by_name[score["run"]], **score} for score in scored]
    rows = [{name: row[name] if name != "commit" else row[name] or None for name in COLUMNS} for row in rows]
    return Study(folder, rows, runs) if rows else None


def refuse_twice(path: Path, names: Iterable[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} has {twice[0]} twice; delete one of the two rows.")


def read_columns(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of a packed table; an empty field is "" in a column of text, else None."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names, raw = list(reader.fieldnames or []), list(reader)
    if names != list(columns):
        raise ValueError(f"{path} has columns of another version; pack the study again with this one.")
    kinds = {name: KINDS.get(name, int) for name in columns}
    try:
        return [
            {name: from_table(row[name]) if kind is str else kind(row[name]) if row[name] else None
             for name, kind in kinds.items()} for row in raw
        ]  # fmt: skip
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a field of another kind ({error}); pack the study again.") from error
