"""The figures in the documents are those of the stored results."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = {
    "text7-transformer-smt": "| transformer, SMT → DMT |",
    "text7-transformer-bptt": "| transformer, BPTT |",
    "text7-gru-smt": "| gru, SMT → DMT |",
}


@pytest.mark.parametrize("name", ROWS)
def test_the_text_figures_are_those_of_the_stored_run(name):
    record = json.loads((ROOT / "docs" / "results" / name / "run.json").read_text(encoding="utf-8"))
    nats = [f"{p['loss'] / record['bytes_per_token']:.3f}" for p in record["final"]["by_horizon"]]
    row = ROWS[name] + "".join(f" {figure} |" for figure in nats)
    assert row in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_readme_table_is_that_of_the_stored_runs():
    from smt_hf.evaluation.metrics import bits_per_byte

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ROWS:
        record = json.loads((ROOT / "docs" / "results" / name / "run.json").read_text(encoding="utf-8"))
        (line,) = [x for x in text.splitlines() if x.split()[:2] == [record["cell"], record["method"]]]
        for part in record["final"]["by_horizon"]:
            assert f"{bits_per_byte(part['loss'], record['bytes_per_token']):.3f}" in line


def test_stored_records_name_no_path_of_a_machine():
    for path in (ROOT / "docs" / "results").glob("*/run.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert not Path(record["output_dir"]).is_absolute()
        assert not any(word.startswith("/") for word in record["command"])
