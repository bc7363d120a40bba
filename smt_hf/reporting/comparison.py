"""Finished runs side by side: a table, learning curves, and both methods at equal budgets."""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

from rich.table import Table

from smt_hf.data.kinds import METRICS
from smt_hf.runs.record import RunRecord

from .formats import AXES, COMPACT, short, spread
from .looks import STYLES, look
from .study import Record, Run, read_run


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in folders. Raises ValueError for a folder without a finished run."""
    for folder in folders:
        RunRecord.of_finished(folder)
    return [read_run(folder) for folder in folders]


def known(run: Run) -> Record:
    assert run.record is not None  # only runs with a record are compared
    return run.record


def comparison_tables(runs: Sequence[Run]) -> list[Table]:
    """One table of at most 80 columns for each kind of data among the runs.

    bytes: of state per sequence. s: seconds of training. seq.: sequential steps, cell applications that
    had to wait for one another.
    """
    tables = []
    for kind, metric in METRICS.items():
        chosen = [known(run) for run in runs if known(run).data_kind == kind]
        if not chosen:
            continue
        names = " and ".join(sorted({record.dataset for record in chosen}))
        what = metric.replace("_", " ") + (" at the trained length" if kind == "task" else " by horizon")
        table = Table(title=f"{names}: {what}, free-running from a cold start", title_justify="left", **COMPACT)
        table.add_column("cell", overflow="fold")  # gives way, so that every figure stays whole
        table.add_column("method", no_wrap=True)
        ends = sorted({end for record in chosen for end in record.final})
        buckets = ["length", "accuracy"] if kind == "task" else [f"–{end}" for end in ends]
        for name in ("param.", *buckets, "bytes", "s", "seq."):
            table.add_column(name, justify="right", no_wrap=True)
        for record in chosen:
            figures = [f"{record.final[end]:.3f}" if end in record.final else "" for end in ends]
            if kind == "task":
                figures = [str(record.sequence_length), f"{record.final[record.sequence_length]:.3f}"]
            table.add_row(
                record.cell, record.method, short(record.parameters), *figures, str(record.state_bytes),
                f"{record.seconds:.0f}", short(record.sequential_steps or 0),
            )  # fmt: skip
        tables.append(table)
    return tables


def figure_at(run: Run, axis: str, budget: float) -> float:
    """The run's figure when it had used `budget` of `axis`, between two evaluations by interpolation.

    Read off before the end of a run, it is that of a learning rate that has not decayed yet.
    """
    points = [(getattr(one, axis), one.value) for one in run.evaluations]
    if budget <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= budget <= x1:
            return y0 + (y1 - y0) * (budget - x0) / max(x1 - x0, 1e-9)
    return points[-1][1]


def equal_budget_table(runs: Sequence[Run]) -> Table | None:
    """SMT beside BPTT of the same cell, data and seed at the largest budget that both have used.

    One column per axis: equal seconds, tokens, sequential steps. Several seeds: mean ± half the range.
    None when no such pair is among the runs; a run without evaluations is in none.
    """
    pairs: dict[tuple[str, str], list[tuple[Run, Run]]] = {}
    evaluated = [run for run in runs if run.record is not None and run.evaluations]
    for smt, bptt in product(evaluated, evaluated):
        one, other = known(smt), known(bptt)
        names = ("cell", "dataset", "data_fingerprint", "seed")
        same = all(getattr(one, name) == getattr(other, name) for name in names)
        if same and (one.method, other.method) == ("smt", "bptt"):
            length = f" {one.sequence_length}" if one.data_kind == "task" else ""
            pairs.setdefault((one.dataset + length, one.cell), []).append((smt, bptt))
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
            budgets = [min(getattr(run.evaluations[-1], axis) for run in couple) for couple in couples]
            both = [
                spread([figure_at(couple[side], axis, n) for couple, n in zip(couples, budgets, strict=True)])
                for side in (0, 1)
            ]
            cells.append(" | ".join(both))
        seconds, tokens, steps = cells[1], cells[0], cells[2]
        table.add_row(dataset, cell, str(len(couples)), seconds, tokens, steps)
    return table


def plot_learning_curves(runs: Sequence[Run], path: Path) -> None:
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

    datasets = list(dict.fromkeys(known(run).dataset for run in runs))
    cells = {known(run).cell for run in runs}
    figure, axes = plt.subplots(
        len(datasets), 3, figsize=(12, 3.4 * len(datasets)), squeeze=False, layout="constrained"
    )
    for row, dataset in zip(axes, datasets, strict=True):
        chosen = [run for run in runs if known(run).dataset == dataset]
        for axis, (key, label) in zip(row, AXES.items(), strict=True):
            for run in chosen:
                record = known(run)
                axis.plot(
                    [getattr(one, key) for one in run.evaluations],
                    [one.value for one in run.evaluations],
                    STYLES[record.method],
                    color=look(record.cell, cells)["color"],
                    marker=".",
                    label=f"{record.cell}, {record.method}",
                )
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
            if key != "seconds":
                axis.set_xscale("log")
                # 500 k, 1 M, 2 M …: the labels of a default logarithmic axis run into one another.
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_major_formatter(EngFormatter())
                axis.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel(f"{dataset}: {METRICS[known(chosen[0]).data_kind].replace('_', ' ')}")
        row[0].legend(fontsize=8)
    figure.suptitle("Free-running from a cold start while training")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # whole or absent
    try:
        figure.savefig(part, dpi=120, format=path.suffix[1:] or "png")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        plt.close(figure)
