"""The results of an experiment as tables of 80 columns."""

from rich.table import Table

from smt_hf.runs.results import Row

from .formats import COMPACT, cell_name, short, spread
from .groups import by_training_length, result_lines


def results_tables(rows: list[Row]) -> list[Table]:
    """One table of at most 80 columns for each training length: the value at each length tested, free-running.

    Several seeds: mean, and ± half the range below it. s: seconds of training. seq.: sequential steps.
    """
    tables = []
    for length, part in by_training_length(rows).items():
        tested = sorted({row["length_tested"] for row in part})
        metric = part[0]["metric"].replace("_", " ")
        chance = "" if part[0]["chance"] is None else f", chance {part[0]['chance']:.3f}"
        varied = any(row["variant"] for row in part)
        # The names of variants are long: a cell that all of them share is named once, above.
        names = ["variant"] * varied + ["cell"] * (not varied or len({row["cell"] for row in part}) > 1)
        of_cell = "" if "cell" in names else f", {cell_name(part[0]['cell'])} cell"
        title = f"{part[0]['experiment']} trained at {length}: {metric}{chance}{of_cell}"
        table = Table(title=title, title_justify="left", **COMPACT)
        for name in names:
            table.add_column(name, overflow="fold")
        for name in ("method", "seeds", *map(str, tested), "s", "seq."):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        lines = result_lines(part)
        for line in lines:
            key, star = line.key, "*" if line.chosen else ""
            table.add_row(
                *(cell_name(key.cell) if name == "cell" else key.variant for name in names),
                key.method if key.method == "smt" else f"{key.method} {key.learning_rate:g}{star}",
                str(line.seeds),
                # The spread below its mean: beside it, four lengths would need 94 columns.
                *(spread(line.values[n]).replace("±", "\n±") if n in line.values else "" for n in tested),
                f"{line.seconds:.0f}",
                short(round(line.sequential_steps)),
            )
        if any(line.chosen for line in lines):
            table.caption, table.caption_justify = "* the best learning rate at the trained length", "left"
        tables.append(table)
    return tables
