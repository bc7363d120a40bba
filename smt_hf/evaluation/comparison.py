"""Finished runs side by side: a table, and learning curves, from their run.json and metrics.jsonl alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .metrics import bits_per_byte

if TYPE_CHECKING:
    from rich.table import Table

# Okabe & Ito's palette, told apart by colour-blind eyes and in grey; the method is the line style.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = {"smt": "-", "bptt": "--"}
AXES = {
    "tokens": "tokens",
    "seconds": "seconds of training",
    "sequential_steps": "sequential steps",
}


def read_runs(folders: list[Path]) -> list[dict[str, Any]]:
    """The records of the runs, each with its `curve`: the evaluations while training.

    Raises ValueError for a folder without a finished run.
    """
    runs = []
    for folder in folders:
        path = folder / "run.json"
        if not path.is_file():
            raise ValueError(f"{folder} holds no run (no run.json); give folders that smt-hf pretrain wrote.")
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["status"] != "finished":
            raise ValueError(f"the run in {folder} is {record['status']}; finish it with --resume first.")
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        curve = [line for line in map(json.loads, lines) if "evaluation" in line]
        runs.append({**record, "folder": str(folder), "curve": curve})
    return runs


def value(metrics: dict[str, Any], run: dict[str, Any]) -> float:
    """The one figure of an evaluation: bits per byte, or accuracy for a task."""
    if run["data_kind"] == "task":
        return metrics["accuracy"]
    return bits_per_byte(metrics["loss"], run["bytes_per_token"])


def comparison_tables(runs: list[dict[str, Any]]) -> list["Table"]:
    """One table of at most 80 columns for each kind of data among the runs."""
    from rich.table import Table

    tables = []
    for kind in ("text", "task"):
        chosen = [run for run in runs if run["data_kind"] == kind]
        if not chosen:
            continue
        names = " and ".join(sorted({run["dataset"] for run in chosen}))
        what = "bits per byte by horizon" if kind == "text" else "accuracy at the trained length"
        table = Table(title=f"{names}: {what}, free-running from a cold start", title_justify="left")
        table.add_column("cell")
        table.add_column("method")
        for name in ("param.", *buckets(chosen, kind), "state B", "s", "seq. steps"):
            table.add_column(name, justify="right")
        for run in chosen:
            if kind == "text":
                final = {
                    f"–{part['end']}": bits_per_byte(part["loss"], run["bytes_per_token"])
                    for part in run["final"]["by_horizon"]
                }
                figures = [f"{final[name]:.3f}" if name in final else "" for name in buckets(chosen, kind)]
            else:
                figures = [str(run["sequence_length"]), f"{run['final']['accuracy']:.3f}"]
            table.add_row(
                run["cell"], run["method"], short(run["parameters"]), *figures, str(run["state_bytes"]),
                f"{run['seconds']:.0f}", short(run["sequential_steps"]),
            )  # fmt: skip
        tables.append(table)
    return tables


def buckets(runs: list[dict[str, Any]], kind: str) -> list[str]:
    if kind == "task":
        return ["length", "accuracy"]
    ends = {part["end"] for run in runs for part in run["final"]["by_horizon"]}
    return [f"–{end}" for end in sorted(ends)]


def short(number: int) -> str:
    """12345678 → 12.3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def plot_learning_curves(runs: list[dict[str, Any]], path: Path) -> None:
    """Free-running loss (or accuracy) against tokens, seconds and sequential steps: one row per dataset.

    Raises ValueError if matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("the plot needs matplotlib; install it with pip install 'smt-hf[report]'.") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    datasets = list(dict.fromkeys(run["dataset"] for run in runs))
    cells = list(dict.fromkeys(run["cell"] for run in runs))
    figure, axes = plt.subplots(
        len(datasets), 3, figsize=(12, 3.4 * len(datasets)), squeeze=False, layout="constrained"
    )
    for row, dataset in zip(axes, datasets, strict=True):
        chosen = [run for run in runs if run["dataset"] == dataset]
        for axis, (key, label) in zip(row, AXES.items(), strict=True):
            for run in chosen:
                axis.plot(
                    [line[key] for line in run["curve"]],
                    [value(line["evaluation"], run) for line in run["curve"]],
                    STYLES[run["method"]],
                    color=COLORS[cells.index(run["cell"]) % len(COLORS)],
                    marker=".",
                    label=f"{run['cell']}, {run['method']}",
                )
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
            if key != "seconds":
                axis.set_xscale("log")
        task = chosen[0]["data_kind"] == "task"
        row[0].set_ylabel(f"{dataset}: " + ("accuracy" if task else "bits per byte"))
        row[0].legend(fontsize=8)
    figure.suptitle("Free-running from a cold start while training")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
