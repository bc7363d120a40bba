"""The page about experiments and speed: one HTML file that needs nothing else, not even a script."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from smt_hf.runs.results import Row

from .drawing import Picture, inline_svg
from .findings import Summary, parts, summary, teacher_values
from .formats import cell_name, short, spread
from .groups import result_lines
from .looks import COLORS
from .study import Study

TEMPLATE = Path(__file__).with_name("page.html")  # its colours have a contrast of 4.5 or more
MARK = "<title>smt-hf: experiments</title>"  # of every page that was made here
TITLES = {
    "decode": "Generation",
    "prefill": "Reading a prompt",
    "train": "Training steps",
    "dmt": "DMT steps",
    "serve": "Serving",
}


def page(
    experiments: Sequence[tuple[Study, list[Picture]]],
    benchmarks: dict[str, tuple[dict[str, Any], Picture | None]],
    recipes: Mapping[str, str],
) -> str:
    """The whole page. benchmarks: name of the file → its record and its picture.

    recipes: name of an experiment that can be run → what it asks.
    """
    names = [experiment.name for experiment, _ in experiments]
    titled = [
        (title_of(one) if names.count(one.name) > 1 else one.name, one, pictures)
        for one, pictures in experiments
    ]
    sections = [experiment_section(title, one, pictures, recipes) for title, one, pictures in titled]
    contents = [link(title) for title, *_ in titled]
    if benchmarks:
        sections.append(speed_section(benchmarks))
        contents.append(link("Speed"))
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        colors=" ".join(f"--color-{number}: {color.lower()};" for number, color in enumerate(COLORS)),
        contents="\n".join(f"<li>{entry}</li>" for entry in contents),
        summary=summary_table([(title, one) for title, one, _ in titled]) if titled else "",
        sections="\n".join(sections),
    )


def title_of(experiment: Study) -> str:
    """The title of one of several folders of an experiment: retrieval, retrieval256, retrieval (again)."""
    name, folder = experiment.name, experiment.folder.name
    return folder if folder.startswith(name) else f"{name} ({folder})"


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def link(title: str) -> str:
    return f'<a href="#{anchor(title)}">{escape(title)}</a>'


def table(
    head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], caption: str = "", words: int = 1
) -> str:
    """A table that scrolls by itself on a narrow page.

    rows: CSS class and cells, which are HTML already; head and caption are text.
    words: the first columns, which are set to the left.
    """
    lines = ['<div class="scroll"><table>']
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    sides = [' class="word"' if number < words else "" for number in range(len(head))]
    cells = zip(head, sides, strict=True)
    lines.append(
        "<thead><tr>" + "".join(f"<th{side}>{escape(text)}</th>" for text, side in cells) + "</tr></thead>"
    )
    lines.append("<tbody>")
    for kind, values in rows:
        cells = zip(values, sides, strict=True)
        attribute = f' class="{kind}"' if kind else ""
        lines.append(f"<tr{attribute}>" + "".join(f"<td{side}>{html}</td>" for html, side in cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def summary_table(experiments: Sequence[tuple[str, Study]]) -> str:
    rows = []
    for title, experiment in experiments:
        for line in summary(experiment):
            smt, bptt = figures(line, experiment.metric)
            chance = "" if experiment.chance is None else f"{experiment.chance:.3f}"
            teacher = spread(line.teacher) if line.teacher else ""
            names = [link(title), escape(cell_name(line.cell) + line.preset), str(line.length)]
            rows.append(("", [*names, smt, bptt, teacher, chance, escape(experiment.metric)]))
    head = ["experiment", "cell", "length", "SMT → DMT", "best BPTT", "teacher", "chance", "metric"]
    note = (
        "Free-running from a cold start at the trained length; text and images: the mean over all horizons. "
        "Several seeds: mean ± half the range. Bold: the better of the two means, to three digits."
    )
    return table(head, rows, words=2) + f'<p class="note">{note}</p>'


def figures(line: Summary, metric: str) -> tuple[str, str]:
    """SMT's and BPTT's cells of the summary: the better mean bold, and no one if they are equal as shown."""
    shown = [spread(values) if values else "" for values in (line.smt, line.bptt)]
    if line.smt and line.bptt:
        smt, bptt = (round(statistics.fmean(values), 3) for values in (line.smt, line.bptt))
        if smt != bptt:
            better = 0 if (smt > bptt) == (metric == "accuracy") else 1
            shown[better] = f"<strong>{shown[better]}</strong>"
    if line.bptt_learning_rate is not None:
        shown[1] += f" <small>({line.bptt_learning_rate:g})</small>"
    return shown[0], shown[1]


def experiment_section(
    title: str, experiment: Study, pictures: list[Picture], recipes: Mapping[str, str]
) -> str:
    about = recipes.get(experiment.name)
    about = f"{about[0].upper()}{about[1:]}." if about else f"The task is {experiment.rows[0]['task']}."
    html = [f'<section id="{anchor(title)}">', f"<h2>{escape(title)}</h2>", f"<p>{escape(about)}</p>"]
    for length, part in parts(experiment, variants=True).items():
        html.append(results_table(experiment, length, part))
    html += [figure(picture, f"{title}-{picture.name}") for picture in pictures]
    commands = dict.fromkeys(row["command"] for row in experiment.rows)
    if experiment.name in recipes:
        html.append(f"<p>To make it again:</p><pre>{escape(again(experiment))}</pre>")
    listed = "\n".join(map(escape, commands))
    html.append(f"<details><summary>Runs, one by one ({len(commands)})</summary><pre>{listed}</pre></details>")
    if made := provenance(experiment):
        html.append(f'<p class="note">{escape(made)}</p>')
    return "\n".join([*html, "</section>"])


def results_table(experiment: Study, length: int, part: list[Row]) -> str:
    """All runs of one training length, and the teacher under each cell's."""
    tested = sorted({row["length_tested"] for row in part})
    lines = result_lines(part)
    varied = any(line.key.variant for line in lines)
    rows: list[tuple[str, Sequence[str]]] = []
    for line in lines:
        key = line.key
        method = "SMT → DMT" if key.method == "smt" else f"BPTT {key.learning_rate:g}"
        star = ' <abbr title="the best learning rate where it was trained">★</abbr>' if line.chosen else ""
        values = [spread(line.values[n]) if n in line.values else "" for n in tested]
        costs = [f"{line.seconds:.0f}", short(round(line.sequential_steps))]
        kind = "rival" if line.rival else ""
        names = [escape(cell_name(key.cell)), *([escape(key.variant)] if varied else []), method + star]
        rows.append((kind, [*names, str(line.seeds), *values, *costs]))
    for cell, teacher in teacher_values(experiment, part).items():
        values = [spread(teacher[n]) if n in teacher else "" for n in tested]
        names = [escape(cell_name(cell)), *([""] if varied else []), "teacher"]
        rows.append(("teacher", [*names, str(len(teacher[0])), *values, "", ""]))
    head = [
        "cell",
        *(["variant"] if varied else []),
        "method",
        "seeds",
        *(f"{n:,}" for n in tested),
        "s",
        "seq. steps",
    ]
    chance = "" if experiment.chance is None else f"; chance {experiment.chance:.3f}"
    where = "at each length tested" if experiment.metric == "accuracy" else "by the end of each horizon"
    caption = f"Trained at {length}: {experiment.metric} {where}{chance}"
    return table(head, rows, caption, words=2 + varied)


def again(experiment: Study) -> str:
    """The command that makes the rows; what else was set stands in the commands of the runs."""
    words = ["smt-hf experiment", experiment.name]
    for option, column in (("--lengths", "length_trained"), ("--cells", "cell"), ("--seeds", "seed")):
        words += [option, *map(str, sorted({row[column] for row in experiment.rows}))]
    return " ".join(words)


def provenance(experiment: Study) -> str:
    """Machines, versions and commits, of what the runs' records tell."""
    records = [run.record for run in experiment.runs.values() if run.record]
    made = [f"{record.machine}; {record.versions}" for record in records]
    commits = [f"commit {row['commit'][:10]}" for row in experiment.rows if row["commit"]]
    return "; ".join(dict.fromkeys([*made, *commits]))


def figure(picture: Picture, name: str) -> str:
    kind = ' class="wide"' if picture.wide else ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
    return f'<figure{kind}><div class="scroll">{inline_svg(picture, name)}</div>{caption}</figure>'


def speed_section(benchmarks: dict[str, tuple[dict[str, Any], Picture | None]]) -> str:
    parts = ['<section id="speed">', "<h2>Speed</h2>"]
    ordered = sorted(benchmarks.items(), key=lambda item: (list(TITLES).index(item[1][0]["what"]), item[0]))
    for name, (record, picture) in ordered:
        machine = record["machine"]
        parts.append(f"<h3>{TITLES[record['what']]} <small>{escape(name)}</small></h3>")
        if picture is not None:
            parts.append(figure(picture, name))
        parts.append(benchmark_table(record))
        told = (
            f"{machine['processor']}, {machine['device']}, {machine['cores']} cores, {record['dtype']}; "
            f"smt-hf {machine['smt_hf']}, torch {machine['torch']}, transformers {machine['transformers']}; "
            f"medians of {record['repeats']} rounds"
        )
        parts.append(f'<p class="note">{escape(told)}</p>')
        parts.append(f"<p>To make it again:</p><pre>smt-hf {escape(' '.join(record['command']))}</pre>")
    return "\n".join([*parts, "</section>"])


def benchmark_table(record: dict[str, Any]) -> str:
    head = ["model", "method", "parameters", "context", "tokens/s", "range", "state, bytes"]
    rows = []
    for row in record["rows"]:
        low, high = row["range"]
        cells = [
            escape(row["model"]), escape(row.get("method", "")), short(row["parameters"]),
            f"{row['context']:,}", f"{row['tokens_per_second']:,.0f}", f"{low:,.0f}–{high:,.0f}",
            f"{row['state_bytes']:,}" if "state_bytes" in row else "",
        ]  # fmt: skip
        rows.append(cells)
    kept = [place for place in range(len(head)) if any(cells[place] for cells in rows)]
    shown = [("", [cells[place] for place in kept]) for cells in rows]
    return table([head[place] for place in kept], shown, words=1 + (1 in kept))
