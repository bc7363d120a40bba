"""RESULTS.md says what the stored experiments say.

`python tests/test_evidence.py` prints the tables of all of them, as RESULTS.md has them.
"""

import json
import math
import statistics
from itertools import pairwise
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
    learning_curve,
    read_experiment,
    read_run,
    summary,
)
from smt_hf.experiments.report import Key, best_groups, cell_name, groups_of, place, result_lines, scores
from smt_hf.experiments.results import Row

ROOT = Path(__file__).parents[1]
STORED = sorted((ROOT / "docs" / "results" / "experiments").glob("*/results.csv"))
NAMES = [path.parent.name for path in STORED]


def load(name: str) -> Experiment:
    experiment = read_experiment(ROOT / "docs" / "results" / "experiments" / name / "results.csv")
    assert experiment is not None
    return experiment


def teacher_score(runs: list[RunFiles], metric: str) -> str:
    found = [(run.probes["teacher"], run) for run in runs if run.probes and run.probes["teacher"]]
    values = [in_metric(teacher, metric, run) for teacher, run in found]
    return spread([value for value in values if value is not None]) if values else ""


def probed_teacher(run: RunFiles) -> dict[str, Any]:
    """What the probes of a finished run of SMT say of its teacher."""
    assert run.probes is not None
    return run.probes["teacher"]


def probed_prompt(experiment: Experiment, run: str) -> dict[str, float]:
    """What they say of its label at the end of the prompt."""
    probes = experiment.runs[run].probes
    assert probes is not None
    return probes["prompt"]


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
            values = [value and f"**{value}**" for value in values]
        teacher = teacher_score(runs, experiment.metric)
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


# These change a part of another, and are not on top.
CHANGES = {"ablations", "compression", "normalisation", "sweeps", "finetune"}
TASKS = sorted(set(NAMES) - CHANGES, key=lambda name: place(load(name).rows))


def summary_lines() -> list[str]:
    """The table on top: each task, length and cell where it was trained and at four times that."""
    lines = [
        "| data | cell | trained at | seeds | SMT → DMT | BPTT | teacher | chance | at 4 T, SMT → DMT | BPTT |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in TASKS:
        experiment = load(name)
        for line in summary(experiment):
            part = [row for row in experiment.parts()[line.length] if row["cell"] == line.cell]
            groups, far = groups_of(part), {}
            for key in best_groups(part):
                found = [r["value"] for r in groups[key] if r["length_tested"] == 4 * line.length]
                far[key.method] = spread(found) if found else ""
            cells = [
                part[0]["task"].replace(":num_keys=8", ", 8 keys in all"),
                cell_name(line.cell), f"{line.length:,}",
                "/".join(str(len(values)) for values in (line.smt, line.bptt)),
                *(spread(values) if values else "" for values in (line.smt, line.bptt, line.teacher)),
                f"{experiment.chance:.3f}" if experiment.chance else "",
                *(far.get(method, "") for method in ("smt", "bptt")),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def first_lines() -> list[str]:
    """When an evaluation is right 0.99 of the time for the first time: seconds, tokens, sequential steps."""
    lines = [
        "| data | cell | T | seconds, SMT | BPTT | tokens, SMT | BPTT | sequential steps, SMT | BPTT |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in TASKS:
        experiment = load(name)
        for length, part in experiment.parts().items() if experiment.chance else []:
            runs = {(key.cell, key.method): found for key, found in experiment.best_runs(part).items()}
            for cell in sorted({cell for cell, _ in runs}):
                both = [first_at(runs.get((cell, method), [])) for method in ("smt", "bptt")]
                if any(one is not None for one in both):
                    cells = [short(round(one[i])) if one else "–" for i in range(3) for one in both]
                    lines.append(
                        f"| {part[0]['task']} | {cell_name(cell)} | {length:,} | {' | '.join(cells)} |"
                    )
    return lines


def first_at(runs: list[RunFiles]) -> list[float] | None:
    """Seconds, tokens and sequential steps, the median over seeds; None unless all seeds get there."""
    curves = [[line for line in learning_curve(run, "accuracy") if line["value"] >= 0.99] for run in runs]
    if not curves or not all(curves):
        return None
    return [
        statistics.median(curve[0][axis] for curve in curves)
        for axis in ("seconds", "tokens", "sequential_steps")
    ]


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


def test_the_summary_and_the_first_time_of_each_task_are_those_of_the_stored_results():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert "\n".join(summary_lines()) in text and "\n".join(first_lines()) in text


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
    text = (ROOT / "docs" / "copying.md").read_text(encoding="utf-8")
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


def test_what_a_label_holds_is_told_as_stored():
    text = (ROOT / "docs" / "copying.md").read_text(encoding="utf-8")
    stored = json.loads((ROOT / "docs" / "results" / "exploration-prompt.json").read_text(encoding="utf-8"))
    for run in stored["runs"]:
        minutes = f"{run['minutes']['smt']:g} + {run['minutes']['dmt']:g}"
        figures = [f"{run[name]:.3f}" for name in ("label_answers", "label_holds", "one_step")]
        figures.append(f"{run['accuracy']:.3f}" if "accuracy" in run else "")
        assert f"| {run['change']} | {minutes} | {' | '.join(figures)} |" in text
    recipe = {
        task: max(
            run["label_holds"] for run in stored["runs"] if (run["task"], run["change"]) == (task, "the recipe")
        )
        for task in ("reverse-copy", "recall")
    }
    labels = json.loads((ROOT / "docs" / "results" / "exploration-labels.json").read_text(encoding="utf-8"))
    read, said = (one["drift"] / one["variance"] for one in labels["positions"]["points"])
    assert round(1 / read) == 15 and "at the sixteenth symbol the drift is a fifteenth of what" in text
    assert abs(said - 2 / 3) < 0.05 and "the drift grows to two thirds of that" in text
    assert recipe["reverse-copy"] < 0.7 and "the decoder knew two thirds of a string" in text
    assert recipe["recall"] < 0.5 and "half of the values of eight keys" in text


def test_what_was_tried_of_dmt_after_the_label_held_the_string_is_told_as_stored():
    text = (ROOT / "docs" / "copying.md").read_text(encoding="utf-8")
    stored = json.loads((ROOT / "docs" / "results" / "exploration-prompt.json").read_text(encoding="utf-8"))
    dmt, whole = stored["dmt"], stored["fifteen_minutes"]
    assert f"With a label that holds {dmt['label_holds']:.3f} of the string" in text
    for run in dmt["runs"]:
        figures = f"{run['steps']:,} | {run['from_label']:.3f} | {run['accuracy']:.3f}"
        assert f"| {run['change']} | {run['minutes']:g} | {figures} |" in text
    for run in whole:
        figures = " | ".join(f"{run[name]:.3f}" for name in ("label_holds", "from_label", "accuracy"))
        assert f"| {run['change']} | {run['steps']:,} | {figures} |" in text
    holds = [probed_prompt(load("copy"), f"gru-32-smt-seed{seed}")["label_holds"] for seed in range(3)]
    assert "whose labels hold {:.2f}, {:.2f} and {:.2f},".format(*holds) in " ".join(text.split())
    rows = [row for row in load("copy").rows if row["length_tested"] == 32]
    right = [row["value"] for row in rows if (row["cell"], row["method"]) == ("gru", "smt")]
    assert f"end at {min(right):.2f} to {max(right):.2f} too" in text
    assert dmt["runs"][-1]["accuracy"] < min(right)  # "after eleven no more than whole runs"
    seeds = {
        row["seed"]: row["value"] for row in rows if (row["cell"], row["method"]) == ("transformer", "smt")
    }
    told = "by the recipe of before say {:.3f}, {:.3f} and {:.3f} from a cold start"
    assert told.format(*(seeds[seed] for seed in range(3))) in " ".join(text.split())


def test_what_asking_the_end_of_the_list_does_for_recall_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    stored = json.loads((ROOT / "docs" / "results" / "exploration-prompt.json").read_text(encoding="utf-8"))
    small, large = (f"gru-24-smt-{variant}seed0" for variant in ("", "num-memory-tokens=8-"))
    holds = [probed_prompt(load("recall"), run)["label_holds"] for run in (small, large)]
    assert f"so that it holds {holds[0]:.3f} of them after seven and a half minutes" in text
    assert f"or {holds[1]:.3f} where it has eight vectors" in text
    assert f"the GRU was right {stored['recall_before']['accuracy']:.3f} of the time" in text
    rows = {row["run"]: row for row in load("recall").rows if row["length_tested"] == 24}
    right, larger = rows[small]["value"], rows[large]["value"]
    assert abs(right - 6 / 7) < 0.01 and "it is right six times out of seven" in text
    assert f"(`num-memory-tokens=8`): {larger:.3f} of the answers are right" in text and larger >= 0.9
    wide: dict[str, dict[int, float]] = {row["method"]: {} for row in load("recall").rows}
    for row in load("recall").rows:
        if "num-memory-tokens=8" in row["variant"]:
            wide[row["method"]][row["length_tested"]] = row["value"]
    assert f"more than by BPTT of the same cell, which has {wide['bptt'][24]:.3f} of the eight" in text
    assert all(wide["smt"][length] > wide["bptt"][length] for length in (48, 96))
    assert "--prompt-fraction 0.8" in rows[small]["command"]


def test_copying_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    results = ROOT / "docs" / "results"
    stored = json.loads((results / "exploration-labels.json").read_text(encoding="utf-8"))
    prompt = json.loads((results / "exploration-prompt.json").read_text(encoding="utf-8"))
    rows = [row for row in load("copy").rows if row["length_tested"] == 32]
    values = {(row["cell"], row["seed"]): row["value"] for row in rows if row["method"] == "smt"}
    of_gru = [values["gru", seed] for seed in range(3)]
    now, before, earlier = (
        "{:.0f}, {:.0f} and {:.0f}".format(*(100 * value for value in found))
        for found in (of_gru, stored["half_rollouts"]["accuracy"], stored["recipe_before"]["accuracy"])
    )
    assert f"The GRUs of three seeds say {now} symbols of a hundred. The recipe of before gave {before}" in text
    assert f"when it was run another time {earlier}:" in text
    seeds = [probed_prompt(load("copy"), f"gru-32-smt-seed{seed}") for seed in range(3)]
    for what, ending in (("label_holds", " of it"), ("from_label", ";")):
        told = "{:.2f}, {:.2f} and {:.2f}".format(*(seed[what] for seed in seeds))
        assert told + ending in text
    assert "from a cold start {:.2f}, {:.2f} and {:.2f}.".format(*of_gru) in text
    stages = [[1.0] * 3, *([seed[what] for seed in seeds] for what in ("label_holds", "from_label")), of_gru]
    costs = [sum(earlier) / 3 - sum(later) / 3 for earlier, later in pairwise(stages)]
    assert all(0.015 < cost < 0.035 for cost in costs) and "costs two to three symbols of a hundred" in text
    steps = {run["change"]: run["one_step"] for run in prompt["runs"] if run["task"] == "reverse-copy"}
    half = "every second step from the end of the prompt"
    one, plain = steps[f"{half}, cell readout weight 1"], steps[half]
    assert f"({one:.2f} of the symbols after one step, and {plain:.3g} without; " in text
    _, _, _, trial = prompt["fifteen_minutes"]
    best = [row for row in rows if (row["cell"], row["method"]) == ("transformer", "bptt")]
    (rate,) = {row["learning_rate"] for row in best if row["seed"] > 0}
    bptt = {row["seed"]: row["value"] for row in best if row["learning_rate"] == rate}
    assert bptt[0] == max(row["value"] for row in best if row["seed"] == 0)
    by_smt, by_bptt = (
        "{:.0f}, {:.0f} and {:.0f}".format(*(100 * of[seed] for seed in range(3)))
        for of in ({seed: values["transformer", seed] for seed in range(3)}, bptt)
    )
    assert f"say {by_smt} back by SMT, with the recipe of before" in text
    assert f"seed 0 says {100 * trial['accuracy']:.0f}), and {by_bptt} by BPTT" in text
    tried = {run["change"]: run["accuracy"] for run in stored["runs"]}
    first, weights = tried["dynamics weight 0.3, uniformity weight 0.001"], tried["1 and 0.1"]
    assert f"easy to follow: {weights:.3f} and not {first:.3f} after five minutes" in text
    late = [run["accuracy"] for run in stored["fifteen_minutes"] if "both cores" in run["change"]]
    assert f"half as many steps again, gave {late[0]:.3f} and {late[1]:.3f}." in text
    both, _, wide, _ = prompt["fifteen_minutes"]
    assert f"label holds {both['label_holds']:.3f} of the string, gave {both['accuracy']:.3f}; with" in text
    assert f"with eight memory tokens {wide['accuracy']:.3f}." in text
    other = json.loads((results / "exploration-copy.json").read_text(encoding="utf-8"))
    of_strings = [run for run in prompt["runs"] if run["task"] == "reverse-copy"]
    assert round(len(of_strings + stored["runs"] + other["runs"]), -1) == 60 and "some sixty other" in text


def test_how_much_of_many_bits_is_learned_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    for cell, told in (
        ("gru", "SMT of the GRU learns {}, {} and {} of a hundred, and BPTT {}, {} and {}."),
        ("transformer", "Of the transformer cell SMT learns {}, {} and {}, and BPTT {}, {} and {}:"),
    ):
        lines = [
            next(line for line in summary(load(name)) if cell_name(line.cell) == cell)
            for name in ("copy", "recall", "primacy")
        ]
        smt, bptt = (
            [round(100 * float(spread(getattr(line, of))[:5])) for line in lines] for of in ("smt", "bptt")
        )
        assert told.format(*smt, *bptt) in text


def test_what_rollouts_of_the_whole_row_do_to_copying_is_told_as_stored():
    stored = json.loads((ROOT / "docs" / "results" / "exploration-labels.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "copying.md").read_text(encoding="utf-8")
    for name, found in (("16 tokens", stored["half_rollouts"]), ("31 tokens", stored["whole_rollouts"])):
        cells = [
            ", ".join(f"{value:{form}}" for value in found[what])
            for what, form in (("accuracy", ".3f"), ("drift", ".3f"), ("steps", ",d"))
        ]
        assert f"| {name} | {' | '.join(cells)} |" in text


def test_the_figures_of_what_was_tried_for_the_stack_are_stored():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    stored = ROOT / "docs" / "results" / "exploration-stack.json"
    for run in json.loads(stored.read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['change']} | {run['accuracy']:.3f} | {run['teacher']:.3f} |" in text


def test_the_figures_of_what_was_tried_for_modular_arithmetic_are_stored():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    path = ROOT / "docs" / "results" / "exploration-modular.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    repeats = 2 / 7 + 5 / 7 * (1 / 7 + 6 / 7 / 5)  # the y of one of two; equal ones; one of the five others
    assert f"rules out what it cannot be ({repeats:.3f})." in " ".join(text.split())
    bptt = load("modular").runs["gru-16-bptt-0.0003-seed0"].lines
    tokens = 128 * 16 * stored["encoder"][0]["steps"]
    near = min((line for line in bptt if "evaluation" in line), key=lambda line: abs(line["tokens"] - tokens))
    assert f"From as many tokens BPTT of the GRU has {near['evaluation']['accuracy']:.3f}," in text
    for run in stored["encoder"]:
        assert abs(run["first"] - repeats) < 0.02  # "half of the time"
        figures = f"{run['steps']:,} | {run['accuracy']:.3f} | {run['first']:.3f}"
        assert f"| the encoder alone, {run['change']} | {figures} |" in text
    for run in stored["teacher"]:
        assert (
            f"| SMT for four minutes, {run['change']} | {run['steps']:,} | {run['accuracy']:.3f} |  |" in text
        )
    teacher = probed_teacher(load("modular").runs["gru-16-smt-seed0"])["accuracy"]
    assert all(abs(run["accuracy"] - teacher) < 0.02 for run in stored["encoder"])  # "as far as the teacher"


def test_the_figures_of_what_was_tried_for_text_are_stored():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    stored = ROOT / "docs" / "results" / "exploration-text.json"
    for run in json.loads(stored.read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['change']} | {run['bits_per_byte']:.3f} | {run['dmt_steps']:,} |" in text


def test_text_at_equal_sequential_steps_is_told_as_stored():
    """Level within a hundredth of a bit for the GRU, SMT ahead for the transformer cell."""
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    experiment = load("text")
    (part,) = experiment.parts().values()
    steps = {cells_of(line)[1]: cells_of(line)[-1].split(" / ") for line in budgets(experiment, part)}
    ahead = {cell: float(bptt.split("±")[0]) - float(smt.split("±")[0]) for cell, (smt, bptt) in steps.items()}
    assert abs(ahead["gru"]) < 0.015 and ahead["transformer"] > 0.2
    assert "are level with the GRU, and SMT is ahead with the transformer cell" in text


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

    def teachers(cell: str) -> tuple[list[float], float]:
        found = [probed_teacher(experiment.runs[f"{cell}-{n}-smt-seed0"]) for n in (16, 32, 64)]
        return [one["accuracy"] for one in found], found[-1]["by_horizon"][-1]["accuracy"]

    def right(cell: str, times: int) -> list[float]:
        rows = [one for one in experiment.rows if (one["cell"], one["method"]) == (cell, "smt")]
        tested = [one for one in rows if one["length_tested"] == times * one["length_trained"]]
        return [one["value"] for one in sorted(tested, key=lambda one: one["length_trained"])]

    reference, late = teachers("gru")
    told = "right {:.3f} of the time at 16, {:.3f} at 32 and {:.3f} at 64, there {:.3f} in the second half"
    assert told.format(*reference, late) in text
    assert "is right {:.3f}, {:.3f} and {:.3f}: it passes".format(*right("gru", 1)) in text
    assert "at four times that it is right {:.3f}, {:.3f} and {:.3f},".format(*right("gru", 4)) in text

    reference, late = teachers("transformer")
    passes = [value > teacher for value, teacher in zip(right("transformer", 1), reference, strict=True)]
    told = "with {:.3f}, {:.3f} and {:.3f}, and at 64 guesses in the second half of a row ({:.3f});"
    assert told.format(*reference, late) in text and all(passes)
    assert "passes it each time, with {:.3f}, {:.3f} and {:.3f}.".format(*right("transformer", 1)) in text
    assert "it does not, {:.3f} and {:.3f} at four times.".format(*right("transformer", 4)[1:]) in text
    bptt = [one["value"] for one in experiment.rows if (one["cell"], one["method"]) == ("transformer", "bptt")]
    assert min(bptt) > 0.9995 and "By BPTT it makes no mistake at any length" in text


def value_of(name: str, cell: str, method: str, length: int) -> float:
    """A figure of the tables: of several learning rates the best where it was trained, of seeds the mean."""
    groups = groups_of(load(name).rows)
    (key,) = (key for key in best_groups(load(name).rows) if key[1:3] == (cell, method) and not key.variant)
    return statistics.fmean(row["value"] for row in groups[key] if row["length_tested"] == length)


def test_what_the_transformer_cell_learns_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    far, of_gru = (
        next(
            row["value"]
            for row in load("parity").rows
            if (row["run"], row["length_tested"]) == (f"{cell}-16-smt-seed0", 256)
        )
        for cell in ("transformer", "gru")
    )
    assert (
        f"holds the rule for longer than the GRU, {far:.3f} at sixteen times the length" in text
        and far > of_gru
    )
    pairs = {
        name: [f"{value_of(name, 'transformer', method, length):.3f}" for method in ("smt", "bptt")]
        for name, length in (("retrieval", 64), ("recall", 24), ("recall8", 24), ("modular", 16))
    }
    assert "{} and not {} (and beyond 64 tokens not at all)".format(*pairs["retrieval"]) in text
    same = "with the same keys in every row {} and not {}, both in eight, BPTT at one rate".format(
        *pairs["recall8"]
    )
    keys = "{} in fifteen minutes and not {} in eight".format(*pairs["recall"])
    assert f"{keys} ({same}), {' and not '.join(pairs['modular'])}." in text
    fixed = [round(100 * float(value)) for value in pairs["recall8"]]
    assert (
        "is right {} times of a hundred by SMT. By BPTT, at one rate, it is right {} times".format(*fixed)
        in text
    )
    assert "{} by SMT, and {} by BPTT at the best of its rates".format(*pairs["modular"]) in text
    smt, bptt = map(float, pairs["recall"])
    assert 2.1 < smt / bptt < 2.4 and "gets in that time less than half as far as SMT" in text
    assert "SMT learns more than twice as many" in text
    assert abs(smt - 3 / 4) < 0.02 and "the transformer cell three out of four" in text
    label = probed_prompt(load("recall"), "transformer-24-smt-seed0")
    assert f"of the transformer cell it holds {label['label_holds']:.3f}" in text
    assert f"goes on from it says {label['from_label']:.3f}" in text


def test_primacy_with_the_weights_of_the_paper_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    stored = json.loads((ROOT / "docs" / "results" / "exploration-labels.json").read_text(encoding="utf-8"))
    near, far, farther = (f"{value:.3f}" for value in stored["primacy"]["accuracy"])
    assert f"the GRU has {near}, {far} and {farther} by SMT" in text
    assert stored["primacy"]["command"].partition(" gru ")[2] in text


def test_the_published_gru_on_text_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    found = {cell_name(line.cell): spread(line.smt) for line in summary(load("text"))}
    plain, gru = found["PlainGRUCell"], found["gru"]
    assert f"one seed has {plain} bits per byte, three of the normalised GRU {gru}," in text
    means = {
        (cell_name(row["cell"]), row["length_tested"]): row["value"]
        for row in load("text").rows
        if row["method"] == "smt" and row["seed"] == 0
    }
    lacks = {end: means["PlainGRUCell", end] - means["gru", end] for end in (32, 64, 128, 256)}
    assert max(lacks, key=lacks.__getitem__) == 256 and "it lacks after the first 128 bytes" in text


def steps_of(run: RunFiles) -> int:
    assert run.record is not None
    return run.record["steps"]


def test_how_bptt_learns_digits_by_heart_is_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    experiment = load("digits")
    curves = {
        name: [(line["value"], round(line["seconds"])) for line in learning_curve(run, experiment.metric)]
        for name, run in experiment.runs.items()
    }
    chosen = {
        cell_name(line.cell): curves[f"{line.cell}-64-bptt-{line.bptt_learning_rate:g}-seed0"]
        for line in summary(experiment)
    }
    assert f"it ends with {chosen['gru'][-1][0]:.3f} bits" in text
    assert f"ends with {chosen['transformer'][-1][0]:.3f}. What follows" in text
    of_transformer = {name: curves.pop(name) for name in list(curves) if name.startswith("transformer")}
    assert all(curve[-1] == min(curve) for curve in of_transformer.values())
    ends = {name: curve[-1][0] for name, curve in of_transformer.items()}
    assert max(ends, key=ends.__getitem__) == "transformer-64-smt-seed0"
    for method, share in (("bptt-0.003", 5), ("smt", 2)):
        fewer, more = (
            steps_of(experiment.runs[f"{cell}-64-{method}-seed0"]) for cell in ("transformer", "gru")
        )
        assert abs(more / fewer - share) < 0.5
    assert "BPTT takes a fifth of the steps in eight minutes (SMT → DMT a half)" in text
    smt = curves.pop("gru-64-smt-seed0")
    assert smt[-1] == min(smt) and f"has not turned by its end, has {smt[-1][0]:.3f} there" in text
    best, name = min((min(curve), name) for name, curve in curves.items())
    assert name == "gru-64-bptt-0.001-seed0"
    assert f"the best is {best[0]:.3f}, after {best[1]} seconds at a rate of 1e-3" in text


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


README_TASKS = ("retrieval", "reverse-copy", "stack", "recall", "modular", "parity", "python-docs")


def readme_lines() -> list[str]:
    """Of the table on top: a cell with gates and one without; the shortest length and the longest."""
    head, rule, *lines = summary_lines()
    rows = [line.split(" | ") for line in lines]
    chosen = {
        (task, cell): [i for i, row in enumerate(rows) if (row[0], row[1]) == (f"| {task}", cell)]
        for task in README_TASKS
        for cell in ("gru", "transformer")
    }
    ends = [i for found in chosen.values() for i in sorted({*found[:1], *found[-1:]})]
    return [head, rule, *(lines[i] for i in ends)]


def test_the_readme_says_of_the_experiments_what_is_stored():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(readme_lines()) in text
    steps = {(line[0], line[1], line[2]): line[7:9] for line in map(cells_of, first_lines()[2:])}
    smt, bptt = (float(count.rstrip("k")) for count in steps["retrieval", "gru", "1,024"])
    assert 48 < bptt / smt < 55 and "after a fiftieth of the sequential steps" in " ".join(text.split())


def test_the_steps_that_wait_are_told_as_stored():
    text = " ".join((ROOT / "RESULTS.md").read_text(encoding="utf-8").split())
    runs = {n: load(name) for n, name in ((64, "retrieval"), (1024, "retrieval1024"))}
    times = []
    for length, experiment in runs.items():
        best = experiment.best_runs(experiment.parts()[length])
        smt, bptt = (
            first_at(found)
            for method in ("smt", "bptt")
            for key, found in best.items()
            if (key.cell, key.method) == ("gru", method)
        )
        assert smt is not None and bptt is not None
        times.append(round(bptt[2] / smt[2]))
    assert f"{times[0]} times as many for a GRU at 64 tokens, {times[1]} times as many at 1,024" in text


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


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
            lines.append(f"| {told} | {cell_name(key.cell)} | {key.method.upper()} | {' | '.join(values)} |")
    return lines


def test_the_reach_of_the_gradients_is_that_of_the_stored_probes():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert len(reach_lines()) >= 6 and "\n".join(reach_lines()) in text


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
    print(*summary_lines(), "", *first_lines(), sep="\n")
    for stored in NAMES:
        for lines in everything(stored):
            print(f"\n## {stored}\n", *lines, sep="\n")
