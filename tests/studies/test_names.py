"""studies/names.py: documents that tell a name and ask for it, and how often a model says it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_long_run import load

from smt_hf.data import load_data

names = load("names")


@pytest.fixture
def found(tmp_path: Path) -> Any:
    """Documents of 48 bytes."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60, "utf-8")
    return names.Documents(load_data(str(text), sequence_length=48, cache_dir=tmp_path).train, 48)


def test_a_document_tells_a_name_and_asks_for_its_first_letter(found):
    rows = found.__getitems__(range(200))
    asked = set()
    for ids, labels in zip(rows["input_ids"], rows["shift_labels"], strict=True):
        (place,) = (labels != -100).nonzero()[0].tolist()
        read = bytes(ids[: place + 1].tolist()).decode(errors="replace")
        letter = chr(int(labels[place]))
        told = read.removeprefix("Name: ").split("\n")[0]
        assert told in names.NAMES and told[0] == letter and read.endswith("\nName: ")
        asked.add(told)
    assert asked == set(names.NAMES) and found.at_length(64)[0]["input_ids"].shape == (64,)


def test_accuracy_is_of_the_right_letter_among_the_sixteen(found, monkeypatch):
    monkeypatch.setattr(names, "TESTED", 64)

    def says(give: Any) -> Any:
        def model(ids: torch.Tensor) -> Any:
            logits = torch.zeros(*ids.shape, 258)
            logits[..., ord("z")] = 9  # no name's letter, so it does not count
            logits[torch.arange(len(ids)), -names.LONG, give(ids)] = 5
            return SimpleNamespace(logits=logits)

        return model

    assert names.accuracy(says(lambda ids: ids[:, len("Name: ")]), found) == 1
    assert names.accuracy(says(lambda ids: torch.full((len(ids),), ord("A"))), found) < 0.3
