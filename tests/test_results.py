"""The figures in the documents are those of the stored results."""

import json
from pathlib import Path

import pytest

from smt_hf.evaluation.comparison import equal_budget_table, read_runs, short
from smt_hf.evaluation.metrics import bits_per_byte

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
RUNS = sorted(path.parent.name for path in RESULTS.glob("*/run.json"))


def record_of(name: str) -> dict:
    return json.loads((RESULTS / name / "run.json").read_text(encoding="utf-8"))


def row_of(name: str) -> str:
    """The row of docs/results.md that belongs to a run: nats per byte by horizon, or accuracy; and costs."""
    record = record_of(name)
    if record["data_kind"] == "task":
        figures = [f"{record['final']['accuracy']:.3f}"]
    else:
        figures = [f"{part['loss'] / record['bytes_per_token']:.3f}" for part in record["final"]["by_horizon"]]
    costs = [f"{record['seconds']:.0f}", short(record["tokens"]), short(record["sequential_steps"])]
    return "| " + " | ".join([name, *figures, *costs]) + " |"


@pytest.mark.parametrize("name", RUNS)
def test_every_stored_run_has_its_row(name):
    assert row_of(name) in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("group", ["text7", "cells"])
def test_the_figures_at_equal_budgets_are_those_that_compare_prints(group):
    table = equal_budget_table(read_runs([RESULTS / name for name in RUNS if name.startswith(group)]))
    assert table is not None
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [str(cell).replace(" | ", " / ") for cell in row]
        assert f"| {' | '.join(cells)} |" in text


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("text7")])
def test_the_readme_table_is_that_of_the_stored_runs(name):
    record = record_of(name)
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [x for x in lines if x.split()[:2] == [record["cell"], record["method"]]]
    for part in record["final"]["by_horizon"]:
        assert f"{bits_per_byte(part['loss'], record['bytes_per_token']):.3f}" in line


def test_the_long_run_is_finite_and_its_figures_are_in_the_text():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads((RESULTS / "long_run-gru.json").read_text(encoding="utf-8"))
    assert result["finite"]
    for span, figure in result["bits_per_byte"].items():
        start, end = (f"{int(edge):,}" for edge in span.split("-"))
        assert f"| {start}–{end} | {figure:.3f} |" in text
    assert all(abs(rms - 1) < 1e-4 for rms in result["memory_rms"].values())
    sizes = {entry["state_bytes"] for entry in result["after_tokens"].values()}
    assert len(sizes) == 1
    for tokens, entry in result["after_tokens"].items():
        assert f"| {int(tokens):,} | {entry['state_bytes']:,} | {entry['process_bytes'] / 1e6:.1f} |" in text


def test_the_figures_of_the_exploration_are_stored():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for run in json.loads((RESULTS / "exploration.json").read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['change']} | {run['loss']:.2f} |" in text


def test_stored_records_name_no_path_of_a_machine():
    for name in RUNS:
        record = record_of(name)
        assert not Path(record["output_dir"]).is_absolute()
        assert not any(word.startswith("/") for word in record["command"])
