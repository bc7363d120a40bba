"""RESULTS.md says what the stored experiments say.

`python tests/test_evidence.py` prints the tables of all of them, as RESULTS.md has them.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from smt_hf.evaluation.comparison import equal_budget_table, short, spread
from smt_hf.evaluation.comparison import read_runs as read_compared
from smt_hf.experiments.findings import (
    Experiment,
    RunFiles,
    gradient_reach,
    in_metric,
    read_experiment,
    read_run,
    summary,
)
from smt_hf.experiments.report import Key, best_groups, cell_name, groups_of, result_lines, scores
from smt_hf.experiments.results import Row

ROOT = Path(__file__).parents[1]
STORED = sorted((ROOT / "docs" / "results" / "experiments").glob("*/results.csv"))
NAMES = [path.parent.name for path in STORED]


def load(name: str) -> Experiment:
    experiment = read_experiment(ROOT / "docs" / "results" / "experiments" / name / "results.csv")
    assert experiment is not None
    return experiment


def teacher_score(runs: list[RunFiles], metric: str) -> str:
    found = [run.probes["teacher"] for run in runs if run.probes and run.probes["teacher"]]
    return spread([one["accuracy"] for one in found]) if found and metric == "accuracy" else ""


def probed_teacher(run: RunFiles) -> dict[str, Any]:
    """What the probes of a finished run of SMT say of its teacher."""
    assert run.probes is not None
    return run.probes["teacher"]


def row(key: Key, *cells: Any) -> str:
    method = "SMT → DMT" if key.method == "smt" else f"BPTT {key.learning_rate:g}"
    return f"| {key.variant or cell_name(key.cell)} | {' | '.join([method, *map(str, cells)])} |"


def table(experiment: Experiment, length: int, part: list[Row]) -> list[str]:
    """A training length: the figure at each length tested, of several learning rates the best in bold."""
    tested = sorted({one["length_tested"] for one in part})
    head = ["", "method", "seeds", *(f"{n:,}" for n in tested), "teacher", "seconds", "sequential steps"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    groups = groups_of(part)
    for line in result_lines(part):
        runs = [experiment.runs[name] for name in dict.fromkeys(one["run"] for one in groups[line.key])]
        values = [spread(line.values[n]) if n in line.values else "" for n in tested]
        if line.chosen:
            values = [f"**{value}**" for value in values]
        teacher = teacher_score(runs, experiment.rows[0]["metric"])
        lines.append(
            row(
                line.key,
                line.seeds,
                *values,
                teacher,
                f"{line.seconds:.0f}",
                short(round(line.sequential_steps)),
            )
        )
    return lines


def budgets(experiment: Experiment, part: list[Row]) -> list[str]:
    """SMT beside the best BPTT at equal seconds, tokens and sequential steps, as the experiment prints it."""
    plain = [one for one in part if not one["variant"]]
    best = set(best_groups(plain))
    names = dict.fromkeys(
        name for key, rows in groups_of(plain).items() if key in best for name in names_of(rows)
    )
    found = equal_budget_table(read_compared([experiment.folder / name for name in names]))
    if found is None:
        return []
    lines = zip(*(column.cells for column in found.columns), strict=True)
    return ["| " + " | ".join(str(cell).replace(" | ", " / ") for cell in line) + " |" for line in lines]


def names_of(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(one["run"] for one in rows))


def everything(name: str) -> list[list[str]]:
    experiment = load(name)
    parts = experiment.parts(variants=True).items()
    return [table(experiment, length, part) + budgets(experiment, part) for length, part in parts]


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_those_of_the_stored_results(name):
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    missing = [line for lines in everything(name) for line in lines if line not in text]
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_every_stored_row_has_its_run_and_its_command(name):
    experiment = load(name)
    for one in experiment.rows:
        record = read_run(experiment.folder / one["run"]).record
        assert record is not None and record["status"] == "finished"
        assert one["command"].startswith("smt-hf pretrain") and f"--seed {one['seed']}" in one["command"]
        assert not any(word.startswith("/") for word in record["command"])
        assert not Path(record["output_dir"]).is_absolute()


@pytest.mark.parametrize("name", NAMES)
def test_the_command_that_remakes_an_experiment_is_named(name):
    assert f"`smt-hf experiment {load(name).name}" in (ROOT / "RESULTS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["exploration-copy", "exploration-labels"])
def test_the_figures_of_what_was_tried_for_copying_are_stored(name):
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    stored = ROOT / "docs" / "results" / f"{name}.json"
    tried = json.loads(stored.read_text(encoding="utf-8"))
    for run in tried["runs"]:
        assert f"| {run['change']} | {run['accuracy']:.3f} |" in text
    for run in tried.get("nine_minutes", []):
        assert f"| {run['change']} | {' | '.join(f'{x:.3f}' for x in run['points'][1::2])} |" in text
    for run in tried.get("fifteen_minutes", []):
        assert f"| {run['change']} | {run['accuracy']:.3f} |" in text
    for one in tried.get("labels", []):
        assert f"| {one['weights']} | {one['share']:.2f} | {one['error']:.2f} |" in text


def test_the_drift_of_copying_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    stored = json.loads((ROOT / "docs" / "results" / "exploration-labels.json").read_text(encoding="utf-8"))
    values = {
        row["seed"]: row["value"]
        for row in load("copy").rows
        if (row["method"], row["length_tested"]) == ("smt", 32)
    }
    assert f"{values[0]:.2f}, {values[1]:.2f}, {values[2]:.2f}".replace("0.", "") == "93, 85, 94"
    assert "imitate theirs 93, 85 and 94 symbols of a hundred" in text
    read, said = (one["drift"] / one["variance"] for one in stored["positions"]["points"])
    assert round(1 / read) == 15 and "at the sixteenth symbol the drift is a fifteenth of what" in text
    assert abs(said - 2 / 3) < 0.05 and "the drift grows to two thirds of that" in text


def test_the_figures_of_what_was_tried_for_the_stack_are_stored():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    stored = ROOT / "docs" / "results" / "exploration-stack.json"
    for run in json.loads(stored.read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['change']} | {run['accuracy']:.3f} | {run['teacher']:.3f} |" in text


def test_the_figures_of_what_was_tried_for_text_are_stored():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    stored = ROOT / "docs" / "results" / "exploration-text.json"
    for run in json.loads(stored.read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['change']} | {run['bits_per_byte']:.3f} | {run['dmt_steps']:,} |" in text


def test_what_fine_tuning_does_beside_its_teacher_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    experiment = load("finetune")
    tuned, plain = (
        "gru-160-smt-dmt-fraction=0.2,bptt-fraction=0.4,bptt-learning-rate=0.001-seed0",
        "gru-160-smt-seed0",
    )

    def teacher(run: str) -> str:
        found = experiment.runs[run]
        (horizon,) = (one for one in probed_teacher(found)["by_horizon"] if one["end"] == 128)
        return f"{in_metric(horizon, experiment.metric, found):.3f}"

    def cell(run: str) -> str:
        (row,) = (one for one in experiment.rows if (one["run"], one["length_tested"]) == (run, 128))
        return f"{row['value']:.3f}"

    assert (
        f"{cell(tuned)} bits per byte between bytes 64 and 128, where the teacher of that run has "
        f"{teacher(tuned)}, and the better one of the run without BPTT {teacher(plain)}." in text
    )
    assert f"BPTT alone, with all of the seven minutes, gets to {cell('gru-160-bptt-0.001-seed0')}." in text


def test_the_cell_passes_its_teacher_in_parity_as_told():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    experiment = load("parity")
    teachers = [probed_teacher(experiment.runs[f"gru-{n}-smt-seed0"]) for n in (16, 32, 64)]
    told = "right {:.3f} of the time at 16, {:.3f} at 32 and {:.3f} at 64, there {:.3f} in the second half"
    late = teachers[-1]["by_horizon"][-1]["accuracy"]
    assert told.format(*(teacher["accuracy"] for teacher in teachers), late) in text
    rows = [one for one in experiment.rows if one["method"] == "smt"]
    for times, told in (
        (1, "is right {}, {} and {}: it passes"),
        (4, "at four times that it is right {}, {} and {},"),
    ):
        tested = [one for one in rows if one["length_tested"] == times * one["length_trained"]]
        values = [f"{one['value']:.3f}" for one in sorted(tested, key=lambda one: one["length_trained"])]
        assert told.format(*values) in text


def test_what_dmt_does_to_two_rows_a_step_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    stored = ROOT / "docs" / "results" / "exploration-dmt-rate.json"
    high, low = (
        {point["share"]: point["accuracy"] for point in run["points"]}
        for run in json.loads(stored.read_text(encoding="utf-8"))["runs"]
    )
    assert f"it was {low[0.5]:.2f} right when SMT ended and {low[1.0]:.2f} at the end" in text
    assert f"from {high[0.5]:.2f} to {high[0.625]:.2f}, and back to {high[1.0]:.2f}" in text


def test_the_labels_of_the_ablations_differ_as_much_as_is_told():
    def uniformity(variant: str) -> str:
        lines = load("ablations").runs[f"transformer-64-smt{variant}-seed0"].lines
        values = [line["uniformity_loss"] for line in lines if "uniformity_loss" in line][-5:]
        return f"{sum(values) / len(values):.2f}".replace("-", "−")

    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    heavy, recipe = uniformity("-dynamics-weight=1"), uniformity("")
    assert f"a uniformity loss of {heavy} at the end of SMT, and {recipe} in the recipe" in text


def test_the_readme_says_of_the_experiments_what_is_stored():
    def score(name: str, cell: str, method: str, tested: int) -> float:
        part = [one for one in load(name).rows if (one["cell"], one["variant"]) == (cell, "")]
        best = [key for key in best_groups(part) if key.method == method]
        (rows,) = (groups_of(part)[key] for key in best)
        values = [one["value"] for one in rows if one["length_tested"] == tested]
        return sum(values) / len(values)

    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    asked = {"copy": 32, "stack": 64, "recall": 24, "modular": 16}
    both = {
        m: ", ".join(f"{score(name, 'gru', m, n):.3f}" for name, n in asked.items()) for m in ("bptt", "smt")
    }
    assert f"better by BPTT of a GRU ({both['bptt']}) than by SMT ({both['smt']})" in text
    (line,) = summary(load("text"))
    bits = {m: f"{sum(values) / len(values):.3f}" for m, values in (("smt", line.smt), ("bptt", line.bptt))}
    assert f"text ({bits['bptt']} bits per byte against {bits['smt']})" in text
    for method in ("smt", "bptt"):
        assert score("retrieval1024", "gru", method, 1024) == 1  # "learns 1,024 by either method"
    assert score("retrieval1024", "transformer", "smt", 4096) == 1
    assert abs(score("retrieval1024", "transformer", "bptt", 1024) - 0.125) < 0.05  # "does not leave chance"
    assert score("retrieval", "transformer", "smt", 256) == 1
    assert abs(score("retrieval", "transformer", "bptt", 256) - 0.125) < 0.05  # "at chance"


REACHES = {"retrieval256": "retrieval at 256", "text": "text"}
DISTANCES = (8, 16, 32, 62, 127, 254)


def reach_lines() -> list[str]:
    """Relative gradient by tokens back, of SMT's teacher and of the cell that BPTT has trained."""
    lines = []
    for name, told in REACHES.items():
        experiment = load(name)
        (part,) = experiment.parts().values()
        for key, runs in experiment.best_runs(part).items():
            reach = gradient_reach(runs)
            values = [f"{reach[d]:.2g}" if d < len(reach) else "" for d in DISTANCES]
            lines.append(f"| {told} | {key.cell} | {key.method.upper()} | {' | '.join(values)} |")
    return lines


def test_the_reach_of_the_gradients_is_that_of_the_stored_probes():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert len(reach_lines()) == 6 and "\n".join(reach_lines()) in text


def test_sweeps_cost_what_the_page_on_performance_says():
    """Nats per byte over all horizons, and their distance from the sequential rollout with the same labels."""
    groups = groups_of(load("sweeps").rows)
    bits = {key.variant: scores(rows)[0] for key, rows in groups.items()}
    nats = {variant: value * math.log(2) for variant, value in bits.items()}
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    every, sparse = ("", "num-sweeps=8", "num-sweeps=15"), "dmt-label-every=16"
    spaced = (sparse, f"num-sweeps=8,{sparse}", f"num-sweeps=15,{sparse}")
    assert f"| sequential | {nats['']:.3f} | {nats[sparse]:.3f} |" in text
    for name, dense, thin in zip(("8 sweeps", "15 sweeps"), every[1:], spaced[1:], strict=True):
        cells = [
            f"{nats[one]:.3f} ({nats[one] - nats[base]:+.3f})".replace("-", "−")
            for one, base in ((dense, ""), (thin, sparse))
        ]
        assert f"| {name} | {' | '.join(cells)} |" in text


if __name__ == "__main__":
    for stored in NAMES:
        for lines in everything(stored):
            print(f"\n## {stored}\n", *lines, sep="\n")
