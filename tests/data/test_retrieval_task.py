"""The retrieval task, checked against its definition row by row."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from smt_hf.data import TASKS, RetrievalTask, keep_batch

ROWS = 2000


@pytest.mark.parametrize(("length", "num_values"), [(4, 2), (5, 8), (8, 8), (33, 3), (64, 8), (257, 20)])
def test_rows_follow_the_definition(length: int, num_values: int) -> None:
    task = RetrievalTask(length, num_values)
    batch = task.__getitems__(range(300))
    assert batch["input_ids"].dtype == batch["shift_labels"].dtype == torch.int64
    for ids, labels in zip(batch["input_ids"].tolist(), batch["shift_labels"].tolist(), strict=True):
        marker = ids.index(num_values)
        assert marker + 1 < length // 2, "marker and value lie in the first half"
        assert ids[-1] == num_values + 1
        assert 0 <= ids[marker + 1] < num_values, "the value follows the marker"
        noise = ids[:marker] + ids[marker + 2 : -1]
        assert all(num_values + 2 <= symbol < 2 * num_values + 2 for symbol in noise)
        assert labels == [-100] * (length - 1) + [ids[marker + 1]]


def test_values_noise_and_marker_positions_are_uniform() -> None:
    task = RetrievalTask(32)
    batch = task.__getitems__(range(ROWS))
    answers = batch["shift_labels"][:, -1].bincount(minlength=8) / ROWS
    noise = batch["input_ids"][:, 16:-1].flatten().bincount(minlength=18)[10:] / (ROWS * 15)
    places = (batch["input_ids"] == 8).float().mean(0)
    assert (answers - 1 / 8).abs().max() < 0.03  # four standard deviations of a proportion
    assert (noise - 1 / 8).abs().max() < 0.008
    assert (places[:15] - 1 / 15).abs().max() < 0.023
    assert places[15:].sum() == 0


def test_noise_says_nothing_about_the_answer() -> None:
    batch = RetrievalTask(16).__getitems__(range(ROWS))
    same = (batch["input_ids"][:, 8:-1] - 10 == batch["shift_labels"][:, -1:]).float().mean(0)
    assert (same - 1 / 8).abs().max() < 0.03


def test_a_row_depends_on_its_index_only_and_not_on_the_batch() -> None:
    task = RetrievalTask(24, seed=3)
    together = task.__getitems__([7, 2**31 - 1, 7, 0])
    for place, index in enumerate([7, 2**31 - 1, 7, 0]):
        alone = RetrievalTask(24, seed=3)[index]
        assert torch.equal(together["input_ids"][place], alone["input_ids"])
        assert torch.equal(together["shift_labels"][place], alone["shift_labels"])
    assert torch.equal(task[-1]["input_ids"], task[2**31 - 1]["input_ids"])


def test_the_definition_is_frozen() -> None:
    """Published numbers name this task: its rows may never change unnoticed."""
    expected = [[10, 10, 8, 0, 17, 17, 14, 9]]
    assert RetrievalTask(8).__getitems__([0])["input_ids"].tolist() == expected


def test_rows_never_repeat_within_or_across_splits_and_seeds() -> None:
    rows: list[tuple[int, ...]] = []
    for split in ("train", "validation"):
        for seed in (0, 1, -1):
            task = RetrievalTask(64, split=split, seed=seed)
            rows += map(tuple, task.__getitems__(range(1000))["input_ids"].tolist())
    assert len(set(rows)) == 6000


def test_lengths_and_sizes() -> None:
    task = RetrievalTask(16, num_values=5, split="validation", seed=4, num_examples=10)
    longer = task.at_length(40)
    assert (len(longer), longer.sequence_length, longer.seed) == (10, 40, 4)
    assert (longer.num_values, longer.split) == (5, "validation")
    assert len(RetrievalTask(16)) == 2**31
    assert len(RetrievalTask(16, split="validation")) == 1024
    assert len(list(task)) == 10, "iteration ends"  # type: ignore[call-overload]
    assert TASKS["retrieval"] is RetrievalTask


def test_the_fingerprint_names_every_argument() -> None:
    tasks = [
        RetrievalTask(16),
        RetrievalTask(17),
        RetrievalTask(16, num_values=9),
        RetrievalTask(16, seed=1),
        RetrievalTask(16, split="validation", num_examples=2**31),
        RetrievalTask(16, num_examples=5),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert RetrievalTask(16).fingerprint == tasks[0].fingerprint


def test_the_tokenizer_spells_rows_and_covers_the_vocabulary() -> None:
    task = RetrievalTask(12)
    tokenizer = task.tokenizer()
    ids = task[5]["input_ids"].tolist()
    text = str(tokenizer.decode(ids))
    assert "<|marker|>" in text and text.endswith("<|query|>")
    assert tokenizer(text)["input_ids"] == ids
    assert len(tokenizer) == task.vocab_size == 19


def test_a_data_loader_gives_stacked_batches_and_copies_the_same_rows() -> None:
    task = RetrievalTask(16, num_examples=10)
    batches = list(DataLoader(task, batch_size=4, collate_fn=keep_batch))
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 2]
    joined = torch.cat([batch["input_ids"] for batch in batches])
    copied = pickle.loads(pickle.dumps(task))  # what a worker process is given
    assert torch.equal(joined, copied.__getitems__(range(10))["input_ids"])


def test_rows_outside_the_dataset_raise() -> None:
    with pytest.raises(IndexError, match="row 1024 is outside a dataset of 1024 rows"):
        RetrievalTask(16, split="validation").__getitems__([0, 1024])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 3}, "at least 4 for marker, value and query, but it is 3"),
        ({"sequence_length": 8, "num_values": 1}, "num_values of at least 2, but it is 1"),
        ({"sequence_length": 8, "split": "test"}, "'train' or 'validation', but it is 'test'"),
        ({"sequence_length": 8, "num_examples": 0}, "must be 1 to .*, but it is 0"),
    ],
)
def test_impossible_tasks_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetrievalTask(**arguments)
