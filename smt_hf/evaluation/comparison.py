"""Finished runs side by side: a table, and learning curves, from their run.json and metrics.jsonl alone."""

import json
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from smt_hf.data.kinds import METRICS, bits_per_byte, in_words

# Okabe & Ito's palette, told apart by colour-blind eyes and in grey; the method is the line style.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = {"smt": "-", "bptt": "--"}
# Tables have to fit 80 columns.
COMPACT: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
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
    """The one figure of an evaluation: bits per byte or per dimension, or accuracy for a task."""
    if run["data_kind"] == "task":
        return metrics["accuracy"]
    return bits_per_byte(metrics["loss"], run["bytes_per_token"])


def comparison_tables(runs: list[dict[str, Any]]) -> list[Table]:
    """One table of at most 80 columns for each kind of data among the runs.

    bytes: of state per sequence. s: seconds of training. seq.: sequential steps, cell applications that
    had to wait for one another.
    """
    tables = []
    for kind in METRICS:
        chosen = [run for run in runs if run["data_kind"] == kind]
        if not chosen:
            continue
        names = " and ".join(sorted({run["dataset"] for run in chosen}))
        what = in_words(kind) + (" at the trained length" if kind == "task" else " by horizon")
        table = Table(title=f"{names}: {what}, free-running from a cold start", title_justify="left", **COMPACT)
        table.add_column("cell", overflow="fold")  # gives way, so that every figure stays whole
        table.add_column("method", no_wrap=True)
        for name in ("param.", *buckets(chosen, kind), "bytes", "s", "seq."):
            table.add_column(name, justify="right", no_wrap=True)
        for run in chosen:
            if kind != "task":
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


def figure_at(run: dict[str, Any], axis: str, budget: float) -> float:
    """The run's figure when it had used `budget` of `axis`, between two evaluations by interpolation.

    Read off before the end of a run, it is that of a learning rate that has not decayed yet.
    """
    points = [(line[axis], value(line["evaluation"], run)) for line in run["curve"]]
    if budget <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= budget <= x1:
            return y0 + (y1 - y0) * (budget - x0) / max(x1 - x0, 1e-9)
    return points[-1][1]


def equal_budget_table(runs: list[dict[str, Any]]) -> Table | None:
    """SMT beside BPTT of the same cell, data and seed at the largest budget that both have used.

    One column per axis: equal seconds, tokens, sequential steps. Several seeds: mean ± half the range.
    None when no such pair is among the runs.
    """
    pairs: dict[tuple[str, ...], list[tuple[dict, dict]]] = {}
    for smt, bptt in product(runs, runs):
        same = all(smt[key] == bptt[key] for key in ("cell", "dataset", "data_fingerprint", "seed"))
        if same and (smt["method"], bptt["method"]) == ("smt", "bptt"):
            length = f" {smt['sequence_length']}" if smt["data_kind"] == "task" else ""
            pairs.setdefault((smt["dataset"] + length, smt["cell"]), []).append((smt, bptt))
    if not pairs:
        return None
    table = Table(title="SMT → DMT | BPTT of the same cell, at equal budgets", title_justify="left", **COMPACT)
    for name in ("data", "cell", "seeds"):
        table.add_column(name)
    for name in ("equal time", "equal tokens", "equal seq. steps"):
        table.add_column(name, justify="right")
    for (dataset, cell), couples in pairs.items():
        cells = []
        for axis in AXES:
            budgets = [min(smt["curve"][-1][axis], bptt["curve"][-1][axis]) for smt, bptt in couples]
            both = [
                spread([figure_at(couple[side], axis, n) for couple, n in zip(couples, budgets, strict=True)])
                for side in (0, 1)
            ]
            cells.append(" | ".join(both))
        seconds, tokens, steps = cells[1], cells[0], cells[2]
        table.add_row(dataset, cell, str(len(couples)), seconds, tokens, steps)
    return table


def spread(figures: list[float]) -> str:
    """Mean, and half the range if there are several."""
    mean = f"{sum(figures) / len(figures):.3f}"
    return mean if len(figures) == 1 else f"{mean}±{(max(figures) - min(figures)) / 2:.3f}"


def short(number: int) -> str:
    """12345678 → 12.3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # where three digits round up to the next letter
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
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

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
                # 500 k, 1 M, 2 M …: the labels of a default logarithmic axis run into one another.
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_major_formatter(EngFormatter())
                axis.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel(f"{dataset}: {in_words(chosen[0]['data_kind'])}")
        row[0].legend(fontsize=8)
    figure.suptitle("Free-running from a cold start while training")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
