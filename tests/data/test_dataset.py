"""The contract of data: what the three kinds offer, and how a dataset of one's own comes to offer it."""

import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from smt_hf.data import METRICS, PixelSequences, as_sequence_dataset, load_data
from smt_hf.data.dataset import SequenceDataset, prompt_length
from smt_hf.data.kinds import bits_per_byte, in_words

ROWS = [{"input_ids": [i, i + 1, i + 2], "shift_labels": [i + 1, -100, i + 3]} for i in range(5)]


class Own:
    """As little as a user may bring: rows of lists."""

    def __init__(self, rows: list[dict[str, Any]] = ROWS, **more: Any) -> None:
        self.rows = rows
        self.__dict__.update(more)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, SequenceDataset]:
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("".join(f"line {i}\n" for i in range(200)))
    return {
        "text": load_data(str(tmp_path / "text.txt"), sequence_length=12).validation,
        "task": load_data("recall", sequence_length=12).validation,
        "image": PixelSequences(np.arange(48, dtype=np.uint8).reshape(4, 3, 4), 48, "by hand"),
    }


def test_text_tasks_images_and_own_rows_offer_the_contract(three: dict[str, SequenceDataset]) -> None:
    own = as_sequence_dataset(Own())
    for kind, data in [*three.items(), ("task", own)]:
        assert isinstance(data, SequenceDataset) and as_sequence_dataset(data) is data
        assert data.kind == kind and data.metric == METRICS[kind]
        assert (data.bytes_per_token is None) == (kind == "task")
        assert data.name and len(data) > 0
        batch = data.__getitems__([1, 0])
        for name in ("input_ids", "shift_labels"):
            assert batch[name].dtype == torch.int64 and batch[name].shape == (2, data.sequence_length)
            assert torch.equal(data[1][name], batch[name][0])
            assert batch[name].max() < data.vocab_size


def test_text_gives_blocks_from_all_over_it_and_the_others_their_first_rows(
    three: dict[str, SequenceDataset],
) -> None:
    for data in (three["task"], three["image"], as_sequence_dataset(Own())):
        x, y = data.evaluation_rows(3, 2)
        first = data.__getitems__([0, 1, 2])
        assert torch.equal(x, first["input_ids"]) and torch.equal(y, first["shift_labels"])
        assert len(data.evaluation_rows(10**6, 2)[0]) == len(data)
    x, y = three["text"].evaluation_rows(3, 5)
    windows = three["text"].at_length(5)
    step = len(windows) // 5 // 3
    expected = windows.__getitems__([0, 5 * step, 10 * step])
    assert torch.equal(x, expected["input_ids"]) and torch.equal(y, expected["shift_labels"])


def test_own_rows_are_the_same_by_themselves_from_lists_arrays_and_datasets() -> None:
    table = datasets.Dataset.from_list([{**row, "note": "not read"} for row in ROWS])
    arrays = [{name: np.array(value, np.int32) for name, value in row.items()} for row in ROWS]
    for rows in (Own(), ROWS, arrays, table, pickle.loads(pickle.dumps(as_sequence_dataset(ROWS)))):
        data = as_sequence_dataset(rows)
        batch = data.__getitems__([4, 2])
        assert set(batch) == {"input_ids", "shift_labels"}
        assert batch["input_ids"].tolist() == [[4, 5, 6], [2, 3, 4]]
        assert batch["shift_labels"].tolist() == [[5, -100, 7], [3, -100, 5]]
        assert (data.sequence_length, data.vocab_size, len(data)) == (3, 8, 5)
        assert data.fingerprint is None and data.bytes_per_token is None


def test_what_an_own_dataset_says_of_itself_is_used() -> None:
    data = as_sequence_dataset(Own(name="mine", vocab_size=99, fingerprint="abc", bytes_per_token=2.0))
    assert (data.name, data.vocab_size, data.fingerprint, data.kind) == ("mine", 99, "abc", "text")
    assert as_sequence_dataset(Own(metric="bits_per_dimension", bytes_per_token=1.0)).kind == "image"
    longer = as_sequence_dataset(Own(at_length=lambda n: Own([{k: v[:n] for k, v in r.items()} for r in ROWS])))
    assert longer.at_length(2)[1]["input_ids"].tolist() == [1, 2] and longer.at_length(3) is longer


def test_a_prompt_ends_before_the_first_target() -> None:
    asked = {"input_ids": [1, 2, 3], "shift_labels": [-100, -100, 1]}
    assert prompt_length(as_sequence_dataset([asked])) == 2
    assert prompt_length(as_sequence_dataset([{**asked, "shift_labels": [-100] * 3}])) == 0


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], ["'list'", "no rows"]),
        ((row for row in ROWS), ["'generator'", "map-style"]),
        ([{"input_ids": [1]}], ["shift_labels", "columns input_ids"]),
        ([[1, 2]], ["input_ids and shift_labels", "list"]),
        ([{"input_ids": [1, 2], "shift_labels": [1]}], ["2 input_ids", "1 shift_labels"]),
        ([{"input_ids": [], "shift_labels": []}], ["0 input_ids"]),
        (Own(kind="video"), ["'video'", "text, image, task"]),
        (Own(kind="text"), ["'text'", "bytes_per_token"]),
    ],
)
def test_rows_that_cannot_be_are_refused_by_name(rows: Any, named: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        as_sequence_dataset(rows)
    assert [part for part in named if part not in str(error.value)] == []


def test_rows_of_different_lengths_are_refused_when_they_meet() -> None:
    ragged = as_sequence_dataset([*ROWS, {"input_ids": [1], "shift_labels": [1]}])
    with pytest.raises(ValueError, match=r"'list' have 1 to 3 input_ids"):
        ragged.__getitems__([0, 5])
    with pytest.raises(ValueError, match=r"'list' have 1 to 3 input_ids"):
        _ = ragged.vocab_size


@pytest.mark.parametrize(
    ("column", "value"), [("input_ids", 8), ("input_ids", -1), ("shift_labels", 8), ("shift_labels", -7)]
)
def test_ids_that_a_model_does_not_know_are_refused_when_they_are_read(column: str, value: int) -> None:
    late = [*ROWS, *ROWS, {**ROWS[0], column: [0, 1, value]}]
    data = as_sequence_dataset(late, 8)
    assert data.vocab_size == 8 and data.__getitems__([0, 9])["input_ids"].shape == (2, 3)
    with pytest.raises(ValueError, match=f"'list' has {column} of {value}; they must be 0 to 7"):
        data.__getitems__([0, 10])
    assert as_sequence_dataset(Own(late, vocab_size=9), 8).vocab_size == 9


def test_a_dataset_without_at_length_has_one_length_only() -> None:
    with pytest.raises(ValueError, match=r"2 tokens.*curriculum_start_length.*at_length\(n\).*'Own'.*3 tokens"):
        as_sequence_dataset(Own()).at_length(2)


def test_metrics_in_words_and_bits_per_byte_by_hand() -> None:
    assert [in_words(kind) for kind in METRICS] == ["bits per byte", "bits per dimension", "accuracy"]
    assert bits_per_byte(np.log(2) * 6, 3.0) == pytest.approx(2.0)
