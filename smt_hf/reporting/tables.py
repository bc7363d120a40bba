"""The tables of README.md, RESULTS.md and the pages, as Markdown, made of stored results.

A page asks for a table by a line `<!-- table: NAME -->`; the table stands between it and `<!-- end -->`.

    summary, first, readme     over all tasks: scores; what the first 0.99 cost; the rows that README shows
    runs STUDY [LENGTH]        every run of a study, of one training length where it has several
    budgets STUDY [LENGTH]     both methods at equal budgets
    each STUDY                 its runs by name
    reach                      how far back gradients reach
    sweeps-loss                what sweeps cost in loss
    ...                        of benchmarks and trials: `record_tables.py`, `trial_tables.py`
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from smt_hf.runs.results import Row

from .comparison import equal_budget_table
from .findings import best_runs, gradient_reach, parts, summary
from .formats import Table, cell_name, markdown, short, spread
from .groups import Key, best_groups, groups_of, place, result_lines, scores, values_by_length
from .record_tables import record_tables
from .study import Run, Study, in_metric
from .trial_tables import trial_tables

# Recipes that change a part of another: they have a section each, and no row on top.
CHANGES = {"ablations", "compression", "normalisation", "sweeps", "finetune"}
README_TASKS = ("retrieval", "reverse-copy", "stack", "recall", "python-docs, preset text")
REACHES = {"retrieval256": "retrieval at 256", "text": "text"}
DISTANCES = (8, 16, 32, 62, 127, 254)


def tables_of(folder: Path, studies: Iterable[Study], order: Sequence[str]) -> dict[str, Callable[[], Table]]:
    """Name → what makes the table, of the studies and records in a folder; order: experiments as listed."""
    named = {study.folder.name: study for study in studies}
    tasks = [study for study in named.values() if study.name in order and study.name not in CHANGES]
    tasks.sort(key=lambda study: place(study.rows, order))
    found: dict[str, Callable[[], Table]] = {
        "summary": partial(summary_table, tasks),
        "first": partial(first_table, tasks),
        "readme": partial(readme_table, tasks),
        "reach": partial(reach_table, named),
    }
    if "sweeps" in named:
        found["sweeps-loss"] = partial(sweeps_loss_table, named["sweeps"])
    for name, study in named.items():
        lengths = parts(study, variants=True)
        for length, part in lengths.items():
            which = f"{name} {length}" if len(lengths) > 1 else name
            found[f"runs {which}"] = partial(runs_table, study, part)
            found[f"budgets {which}"] = partial(budgets_table, study, part)
        found[f"each {name}"] = partial(each_table, study)
    return found | record_tables(folder) | trial_tables(folder)


def runs_table(study: Study, part: list[Row]) -> Table:
    """A training length: the figure at each length tested, of several learning rates the best in bold."""
    tested = sorted({one["length_tested"] for one in part})
    head = ["", "method", "seeds", *(f"{n:,}" for n in tested), "teacher", "seconds", "sequential steps"]
    groups, rows = groups_of(part), []
    for line in result_lines(part):
        runs = [study.runs[name] for name in dict.fromkeys(one["run"] for one in groups[line.key])]
        values = [spread(line.values[n]) if n in line.values else "" for n in tested]
        if line.chosen:
            values = [value and f"**{value}**" for value in values]
        costs = [f"{line.seconds:.0f}", short(round(line.sequential_steps))]
        names = [row_name(line.key, part), method_of(line.key), str(line.seeds)]
        rows.append([*names, *values, teacher_score(runs, study.metric), *costs])
    return markdown(head, rows)


def row_name(key: Key, part: list[Row]) -> str:
    """The cell, and what was varied; of one cell alone, what was varied."""
    cells = {one["cell"] for one in part}
    named = [cell_name(key.cell)] * (len(cells) > 1 or not key.variant) + [key.variant] * bool(key.variant)
    return ", ".join(named)


def method_of(key: Key) -> str:
    return "SMT → DMT" if key.method == "smt" else f"BPTT {key.learning_rate:g}"


def teacher_score(runs: list[Run], metric: str) -> str:
    values = []
    for run in runs:
        if run.probes and run.probes.get("teacher"):
            bytes_per_token = run.record.bytes_per_token if run.record else None
            values.append(in_metric(run.probes["teacher"], metric, bytes_per_token))
    known = [value for value in values if value is not None]
    return spread(known) if known else ""


def budgets_table(study: Study, part: list[Row]) -> Table:
    """SMT beside the best BPTT at equal seconds, tokens and sequential steps, as the experiment prints it."""
    plain = [one for one in part if not one["variant"]]
    runs = [run for found in best_runs_of_all_seeds(study, plain) for run in found]
    table = equal_budget_table(runs)
    if table is None:
        return []
    rows = zip(*(column.cells for column in table.columns), strict=True)
    head = ["data", "cell", "seeds", "equal time", "equal tokens", "equal sequential steps"]
    return markdown(head, [[str(cell).replace(" | ", " / ") for cell in row] for row in rows])


def best_runs_of_all_seeds(study: Study, part: list[Row]) -> list[list[Run]]:
    groups, best = groups_of(part), set(best_groups(part))
    return [
        [study.runs[name] for name in dict.fromkeys(row["run"] for row in rows)]
        for key, rows in groups.items()
        if key in best
    ]


def summary_table(tasks: list[Study]) -> Table:
    """Each task, length and cell where it was trained and at four times that."""
    head = [
        "data", "cell", "trained at", "seeds", "SMT → DMT", "BPTT", "teacher", "chance",
        "at 4 T, SMT → DMT", "BPTT",
    ]  # fmt: skip
    rows = []
    for study in tasks:
        for line in summary(study):
            part = [row for row in parts(study)[line.length] if row["cell"] == line.cell]
            groups, far = groups_of(part), {}
            for key in best_groups(part):
                found = [row["value"] for row in groups[key] if row["length_tested"] == 4 * line.length]
                far[key.method] = spread(found) if found else ""
            rows.append(
                [
                    part[0]["task"].replace(":num_keys=8", ", 8 keys in all") + line.preset,
                    cell_name(line.cell), f"{line.length:,}",
                    "/".join(str(len(values)) for values in (line.smt, line.bptt)),
                    *(spread(values) if values else "" for values in (line.smt, line.bptt, line.teacher)),
                    f"{study.chance:.3f}" if study.chance else "",
                    *(far.get(method, "") for method in ("smt", "bptt")),
                ]
            )  # fmt: skip
    return markdown(head, rows)


def readme_table(tasks: list[Study]) -> Table:
    """Of the summary: a cell with gates and one without; the shortest length and the longest."""
    head, rule, *lines = summary_table(tasks)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    shown = []
    for task in README_TASKS:
        for cell in ("gru", "transformer"):
            found = [i for i, row in enumerate(rows) if row[:2] == [task, cell]]
            shown += sorted({*found[:1], *found[-1:]})
    return [head, rule, *(lines[i] for i in shown)]


def first_table(tasks: list[Study]) -> Table:
    """What it cost until an evaluation was right 0.99 of the time: seconds, tokens, sequential steps."""
    head = [
        "data", "cell", "T", "seconds, SMT", "BPTT", "tokens, SMT", "BPTT", "sequential steps, SMT", "BPTT",
    ]  # fmt: skip
    rows = []
    for study in tasks:
        for length, part in parts(study).items() if study.chance else []:
            runs = {(key.cell, key.method): found for key, found in best_runs(study, part).items()}
            for cell in sorted({cell for cell, _ in runs}):
                both = [first_at(runs.get((cell, method), [])) for method in ("smt", "bptt")]
                if any(one is not None for one in both):
                    costs = [short(round(one[i])) if one else "–" for i in range(3) for one in both]
                    rows.append([part[0]["task"], cell_name(cell), f"{length:,}", *costs])
    return markdown(head, rows)


def first_at(runs: list[Run]) -> list[float] | None:
    """Seconds, tokens and sequential steps, the median over seeds; None unless all seeds get there."""
    curves = [[one for one in run.evaluations if one.value >= 0.99] for run in runs]
    if not curves or not all(curves):
        return None
    return [
        statistics.median(getattr(curve[0], axis) for curve in curves)
        for axis in ("seconds", "tokens", "sequential_steps")
    ]


def each_table(study: Study) -> Table:
    """The runs of a study by name: the figure at each length tested, and the costs."""
    rows_of: dict[str, list[Row]] = {}
    for row in study.rows:
        rows_of.setdefault(row["run"], []).append(row)
    tested = sorted({row["length_tested"] for row in study.rows})
    one_figure = study.metric == "accuracy" and all(len(rows) == 1 for rows in rows_of.values())
    rows = []
    for name, mine in rows_of.items():
        values = values_by_length(mine)
        figures = [f"{values[n][0]:.3f}" if n in values else "" for n in tested]
        if one_figure:
            figures = [f"{mine[0]['value']:.3f}"]
        costs = [f"{mine[0]['seconds']:.0f}", short(mine[0]["tokens"]), short(mine[0]["sequential_steps"])]
        rows.append([name, *figures, *costs])
    shown = [study.metric] if one_figure else [f"{n:,}" for n in tested]
    return markdown(["run", *shown, "seconds", "tokens", "sequential steps"], rows)


def reach_table(studies: dict[str, Study]) -> Table:
    """Relative gradient by tokens back, of SMT's teacher and of the cell that BPTT has trained."""
    rows = []
    for name, told in REACHES.items():
        if name not in studies:
            raise ValueError(f"the table reach needs the study {name}, which is not there.")
        for part in parts(studies[name]).values():
            for key, runs in best_runs(studies[name], part).items():
                reach = gradient_reach(runs)
                values = [f"{reach[d]:.2g}" if d < len(reach) else "" for d in DISTANCES]
                rows.append([told, cell_name(key.cell), key.method.upper(), *values])
    return markdown(["data", "cell", "method", *map(str, DISTANCES)], rows)


def sweeps_loss_table(study: Study) -> Table:
    """Nats per byte over all horizons, and their distance from the sequential rollout with the same labels."""
    nats = {key.variant: scores(rows)[0] * math.log(2) for key, rows in groups_of(study.rows).items()}
    sparse = "dmt-label-every=16"

    def beside(variant: str, base: str) -> str:
        return f"{nats[variant]:.3f} ({nats[variant] - nats[base]:+.3f})".replace("-", "−")

    rows = [["sequential", f"{nats['']:.3f}", f"{nats[sparse]:.3f}"]]
    for sweeps in (8, 15):
        name = f"num-sweeps={sweeps}"
        rows.append([f"{sweeps} sweeps", beside(name, ""), beside(f"{name},{sparse}", sparse)])
    return markdown(["rollout", "label at every step", "label every 16th"], rows)
