"""The results table: one tidy CSV file for an experiment, one row for each figure of each run."""

import csv
import io
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from smt_hf.data.kinds import METRICS, bits_per_byte

from .files import write_atomic
from .locks import locked
from .record import RunRecord

FORMAT = 2  # raise it whenever a column changes its meaning
FILE = "results.csv"
COLUMNS: dict[str, type] = {
    "format": int,
    "experiment": str,
    "run": str,  # folder of the run, beside the table
    "task": str,  # the --dataset
    "cell": str,
    "method": str,  # smt or bptt
    "variant": str,  # what differs from the recipe, NAME=VALUE,…; empty for the recipe as it is
    "seed": int,
    "learning_rate": float,
    "length_trained": int,  # tokens in a training sequence
    "length_tested": int,  # task: tokens in a row; text and images: the end of the horizon that was judged
    "metric": str,  # accuracy, bits_per_byte or bits_per_dimension; free-running, from a cold start
    "value": float,
    "chance": float,  # what guessing has; empty where there is no such figure
    "seconds": float,  # of training
    "tokens": int,
    "sequential_steps": int,
    "command": str,
    "commit": str,
}
EMPTY = {"variant": ""}  # what an empty field means, where it is not None
Row = dict[str, Any]
# A spreadsheet takes text that begins with one of these for a formula; "'" says that it is none.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")


def in_table(value: Any) -> Any:
    """A value as a CSV field. `from_table` reads text back."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def from_table(field: str) -> str:
    return field.removeprefix("'")


def read_results(path: Path) -> list[Row]:
    """The rows of a results table, [] if there is none.

    Raises ValueError for a file that this version did not write, and for a run that has a length twice.
    """
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, raw = list(reader.fieldnames or []), list(reader)
    if columns != list(COLUMNS) or any(row["format"] != str(FORMAT) for row in raw):
        raise ValueError(
            f"{path} is a results table of another version (this one reads format {FORMAT}); read it with the "
            f"version that wrote it, or choose another folder."
        )
    twice = Counter((row["run"], row["length_tested"]) for row in raw).most_common(1)
    if twice and twice[0][1] > 1:
        run, length = twice[0][0]
        raise ValueError(f"{path} has the run {run} at length {length} twice; delete one of the two rows.")
    return [
        {
            name: kind(from_table(row[name])) if row[name] != "" else EMPTY.get(name)
            for name, kind in COLUMNS.items()
        }
        for row in raw
    ]


def write_results(path: Path, rows: list[Row]) -> None:
    """Write the whole table, so that readers see the old one or the new one, never a part."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: in_table(value) for name, value in row.items()})
    write_atomic(path, file.getvalue())


def replace_rows(path: Path, run: str, rows: list[Row]) -> None:
    """Put the rows of one run in the place of those that it had, whoever else writes to the table meanwhile."""
    with locked(path.with_name(f".{path.name}.lock")):
        write_results(path, [row for row in read_results(path) if row["run"] != run] + rows)


def rows_of_run(
    experiment: str,
    run: str,
    length: int,
    record: RunRecord,
    metrics: dict[int, dict[str, Any]],
    chance: float | None,
    variant: str = "",
) -> list[Row]:
    """The rows of one finished run.

    length: the recipe's training length, which names a comparison; BPTT may be trained on shorter windows.
    metrics: `evaluate_rows` by length tested. A task gives one row for each length; text and images, which
    have one, give one row for each horizon.
    """
    kind = record.data_kind
    if kind == "task":
        values = {tested: one["accuracy"] for tested, one in metrics.items()}
    else:
        (one,) = metrics.values()
        values = {
            part["end"]: bits_per_byte(part["loss"], record.bytes_per_token or 1.0)
            for part in one["by_horizon"]
        }
    shared = {
        "format": FORMAT,
        "experiment": experiment,
        "run": run,
        "task": record.dataset,
        "cell": record.cell,
        "method": record.method,
        "variant": variant,
        "seed": record.seed,
        "learning_rate": record.spec["learning_rate"],
        "length_trained": length,
        "metric": METRICS[kind],
        "chance": chance,
        "seconds": round(record.seconds, 1),
        "tokens": record.tokens,
        "sequential_steps": record.sequential_steps,
        "command": shlex.join(record.command),
        "commit": record.git_commit,
    }
    rows = [{**shared, "length_tested": tested, "value": value} for tested, value in values.items()]
    return [{name: row[name] for name in COLUMNS} for row in rows]
