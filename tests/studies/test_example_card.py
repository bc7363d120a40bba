"""The card of the model in the package is that of its record, and its code runs; others are of stored runs."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from smt_hf.example import FOLDER
from smt_hf.hub.card import write_card
from smt_hf.models.cells import BUILT_IN_CELLS
from smt_hf.runs.record import RunRecord

ROOT = Path(__file__).parents[2]


def test_the_card_of_the_model_in_the_package_is_that_of_its_record(tmp_path):
    path = ROOT / "studies" / "example" / "ship.py"
    spec = importlib.util.spec_from_file_location("ship", path)
    assert spec is not None and spec.loader is not None
    ship = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ship)
    write_card(tmp_path, RunRecord.of_finished(FOLDER))
    card = ship.of_the_package((tmp_path / "README.md").read_text("utf-8"))
    # A source distribution has the first alone.
    for path in (FOLDER / "README.md", *ROOT.glob("model_cards/example-*.md")):
        assert path.read_text("utf-8") == card


def test_a_card_is_of_the_run_in_the_results_and_the_hub_reads_its_metadata():
    if not (ROOT / "model_cards").is_dir():
        pytest.skip("a source distribution has neither cards nor results")
    cards = {path.stem.removeprefix("text20-"): path for path in ROOT.glob("model_cards/text20-*.md")}
    with (ROOT / "results" / "text20" / "runs.csv").open(encoding="utf-8", newline="") as file:
        runs = {row["cell"]: row for row in csv.DictReader(file)}
    assert cards.keys() == runs.keys() == set(BUILT_IN_CELLS)
    for cell, path in cards.items():
        card, run = ModelCard.load(path), runs[cell]
        (result,) = card.data.eval_results
        assert result.metric_type == "bits_per_byte" and f"| {result.metric_value:.3f} |" in card.text
        assert f"{int(run['steps']):,} steps" in card.text and run["command"] in card.text


def test_the_snippets_of_the_card_in_the_package_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    snippets = re.findall(r"```python\n(.*?)\n```", (FOLDER / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(snippets) == 4
    for snippet in snippets[:3]:  # the last, fine-tuning, is run with smaller models
        exec(compile(snippet.replace("=100,", "=5,"), "card", "exec"), scope)
    assert "The " in capsys.readouterr().out and (tmp_path / "read.safetensors").is_file()
