"""Markdown tables of stored trials and of what was tried, one JSON file each."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .formats import Rows, Table, markdown, spread
from .study import read_record, tables_of_records


def trial_tables(folder: Path) -> dict[str, Callable[[], Table]]:
    """Name → what makes the table out of a file in `folder`, as the functions below say."""
    found = tables_of_records(
        folder,
        {
            "prefill-sweeps": ("trials-sweeps", prefill_sweeps),
            "int8-speed": ("trials-int8", int8_speed),
            "int8-bits": ("trials-int8", int8_bits),
            "prepack": ("trials-prepack", prepack),
            "prepack-epyc": ("trials-prepack-epyc", prepack),
            "labels": ("trials-labels", labels),
            "scaling": ("scaling", scaling),
            "teachers": ("teachers", teachers),
            "teachers-example": ("teachers-example", teachers),
            "teachers-mixture": ("teachers-mixture", teachers),
            "teachers-started": ("teachers-started", teachers),
            "names": ("names", names),
            "tried-stack": ("exploration-stack", tried_stack),
            "tried-text": ("exploration-text", tried_text),
            "tried-labels": ("exploration-projected", tried_labels),
        },
    )
    if (folder / "exploration-modular.json").is_file():
        found["tried-modular"] = lambda: tried_modular(read_record(folder, "exploration-modular"))
    return found


def prefill_sweeps(rows: Rows) -> Table:
    """Tokens/s read one by one and by sweeps, and cell applications that wait, of trained models."""
    head = ["run", "tokens", "", "tokens/s, one by one", "by sweeps", "waits", "chunks one by one", "error"]
    cells = [
        [row["run"], f"{row['context']:,}", row["way"], f"{row['sequential']['tokens_per_second']:.0f}",
         f"{row['sweeps']['tokens_per_second']:.0f}", f"{row['waits']:,}", f"{row['fallbacks']}",
         f"{row['error']:.0e}"]
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells)


def int8_pairs(rows: Rows, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    whole = {row[name]: row for row in rows if name in row and row["dtype"] == "float32"}
    return [(whole[row[name]], row) for row in rows if name in row and row["dtype"] == "int8"]


def int8_speed(rows: Rows) -> Table:
    cells = []
    for whole, small in int8_pairs(rows, "model"):
        both = whole["tokens_per_second"], small["tokens_per_second"]
        cells.append([whole["model"], f"{both[0]:.0f}", f"{both[1]:.0f}", f"{both[1] / both[0]:.2f}"])
    return markdown(["model", "float32", "int8", "ratio"], cells)


def int8_bits(rows: Rows) -> Table:
    cells = [
        [whole["run"], f"{whole['bits_per_byte']:.3f}", f"{small['bits_per_byte']:.3f}"]
        for whole, small in int8_pairs(rows, "run")
    ]
    return markdown(["run", "float32", "int8"], cells)


def prepack(rows: Rows) -> Table:
    cells = [
        [str(row["rows"]), f"{row['plain'] * 1e3:.2f}", f"{row['prepacked'] * 1e3:.2f}",
         f"{row['prepacked'] / row['plain']:.2f}"]
        for row in rows
    ]  # fmt: skip
    return markdown(["rows", "plain, ms", "prepacked, ms", "ratio"], cells)


def labels(rows: Rows) -> Table:
    """Steps of SMT by encoder and labels of a row, and labels a second over those of the first."""
    first = rows[0]["labels_per_second"]
    cells = [
        [
            row["encoder"],
            str(row["labels"]),
            f"{row['seconds'] * 1e3:.0f}",
            f"{row['labels_per_second'] / first:.1f}",
        ]
        for row in rows
    ]
    return markdown(["labels", "of a row", "step, ms", "labels a second"], cells)


def grouped(rows: Rows, name: str) -> dict[str, Rows]:
    """The rows by what they have under a name, in the order of the first of each."""
    return {
        value: [row for row in rows if row[name] == value] for value in dict.fromkeys(row[name] for row in rows)
    }


def teachers(rows: Rows) -> Table:
    """Bits per byte of each variant: the mean of its seeds ± half their range."""
    cells = []
    for variant, same in grouped(rows, "variant").items():
        steps = statistics.mean(row["steps"] for row in same)
        seconds = statistics.mean(row["cpu_seconds"] for row in same)
        cells.append([
            variant, str(len(same)), spread([row["bits_per_byte"] for row in same]), f"{seconds:.0f}",
            f"{steps:,.0f}",
        ])  # fmt: skip
    return markdown(["run", "seeds", "bits per byte", "CPU seconds", "steps"], cells)


def names(rows: Rows) -> Table:
    """Accuracy of each method and rate: the mean of its seeds ± half their range."""
    ways = [
        {"way": f"{row['method']}, {row['learning_rate']:g}", **row}
        for row in sorted(rows, key=lambda row: (row["method"] != "smt", row["learning_rate"]))
    ]

    def mean(same: Rows, name: str) -> str:
        return f"{statistics.mean(row[name] for row in same):,.0f}"

    cells = [
        [way, str(len(same)), spread([row["accuracy"] for row in same]),
         *(mean(same, name) for name in ("cpu_seconds", "steps", "sequential_steps"))]
        for way, same in grouped(ways, "way").items()
    ]  # fmt: skip
    return markdown(["method, rate", "seeds", "right", "CPU seconds", "steps", "sequential steps"], cells)


def scaling(rows: Rows) -> Table:
    """Medians of tokens/s; efficiency: over twice one process with one thread."""

    def median(method: str, processes: int, threads: int) -> float:
        wanted = {"method": method, "processes": processes, "threads": threads}
        return statistics.median(row["tokens_per_second"] for row in rows if wanted.items() <= row.items())

    cells = []
    for method, name in (("smt", "SMT → DMT"), ("bptt", "BPTT")):
        one, threads, two = median(method, 1, 1), median(method, 1, 2), median(method, 2, 1)
        cells.append([name, f"{one:,.0f}", f"{threads:,.0f}", f"{two:,.0f}", f"{two / one / 2:.2f}"])
    head = ["method", "one process, one thread", "one process, two threads",
            "two processes, one thread each", "efficiency"]  # fmt: skip
    return markdown(head, cells)


def tried_stack(runs: Rows) -> Table:
    cells = [[run["change"], f"{run['accuracy']:.3f}", f"{run['teacher']:.3f}"] for run in runs]
    return markdown(["run", "accuracy", "teacher"], cells)


def tried_labels(runs: Rows) -> Table:
    """By what was changed: bits per byte, the mean of its runs ± half their range, and the mean steps."""
    cells = []
    for change, same in grouped(runs, "change").items():
        steps = statistics.mean(run["steps"] for run in same)
        bits = spread([run["bits_per_byte"] for run in same])
        cells.append([change, str(len(same)), bits, f"{steps:,.0f}"])
    return markdown(["change", "runs", "bits per byte", "steps"], cells)


def tried_text(runs: Rows) -> Table:
    cells = [[run["change"], f"{run['bits_per_byte']:.3f}", f"{run['dmt_steps']:,}"] for run in runs]
    return markdown(["change", "bits per byte", "steps of DMT"], cells)


def tried_modular(record: dict[str, Any]) -> Table:
    cells = [
        [
            f"the encoder alone, {run['change']}",
            f"{run['steps']:,}",
            f"{run['accuracy']:.3f}",
            f"{run['first']:.3f}",
        ]
        for run in record["encoder"]
    ]
    for run in record["teacher"]:
        cells.append(
            [f"SMT for four minutes, {run['change']}", f"{run['steps']:,}", f"{run['accuracy']:.3f}", ""]
        )
    return markdown(["change", "steps", "all answers", "the first"], cells)
