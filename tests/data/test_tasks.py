"""Every task against a slow solver that is given nothing but the input symbols, one after the other."""

import re
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch

from smt_hf.data import load_data
from smt_hf.data.tasks import TASKS, SyntheticTask, is_task, make_task

Symbols = list[str]
NOTHING = None


def solve_retrieval(row: Symbols) -> list[str | None]:
    return [NOTHING] * (len(row) - 1) + [row[row.index("<|marker|>") + 1]]


def solve_copy(row: Symbols) -> list[str | None]:
    n = row.index("<|separator|>")
    assert n == len(row) // 2 and row[n + 1 :] == row[: len(row) - n - 1]
    return ([NOTHING] * n + row[:n] + [NOTHING])[: len(row)]


def solve_reverse_copy(row: Symbols) -> list[str | None]:
    n = row.index("<|separator|>")
    backwards = list(reversed(row[:n]))
    assert n == len(row) // 2 and row[n + 1 :] == backwards[: len(row) - n - 1]
    return ([NOTHING] * n + backwards + [NOTHING])[: len(row)]


def solve_stack(row: Symbols) -> list[str | None]:
    stack: list[str] = []
    answers: list[str | None] = []
    for symbol in row:
        if symbol == "<|pop|>":
            answers.append(stack.pop())  # IndexError: an empty stack must never be popped
        else:
            stack.append(symbol)
            answers.append(NOTHING)
        assert len(stack) <= 10
    return answers


def solve_recall(row: Symbols) -> list[str | None]:
    values: dict[str, str] = {}
    answers: list[str | None] = []
    for i, symbol in enumerate(row):
        answers.append(values.get(symbol) if symbol.startswith("k") else NOTHING)
        if symbol.startswith("k") and symbol not in values:
            assert not row[i + 1].startswith("k"), "a key that is new has a value"
            values[symbol] = row[i + 1]
    assert len(values) == len(row) // 3
    return answers


def solve_modular(row: Symbols, modulus: int = 7) -> list[str | None]:
    """By trying all lines that fit the pairs so far: from the third x on, one y is left."""
    x, y = [int(s) for s in row[::2]], [int(s) for s in row[1::2]]
    answers: list[str | None] = []
    for i in range(len(x)):
        lines = [
            (a, b)
            for a, b in product(range(modulus), repeat=2)
            if all((a * x[j] + b) % modulus == y[j] for j in range(i))
        ]
        possible = {(a * x[i] + b) % modulus for a, b in lines}
        assert len(possible) == (1 if i > 1 else modulus)
        answers += [str(possible.pop()) if i > 1 else NOTHING, NOTHING]
    return answers[: len(row)]


def solve_parity(row: Symbols) -> list[str | None]:
    return [str(row[: i + 1].count("1") % 2) for i in range(len(row))]


def solve_recency(row: Symbols) -> list[str | None]:
    n = row.index("<|recall|>")
    last = row[:n][-4:]
    assert row[n + 1 :] == last[:3]
    return [NOTHING] * n + list(last)


def solve_primacy(row: Symbols) -> list[str | None]:
    n = row.index("<|recall|>")
    assert row[n + 1 :] == row[:3]
    return [NOTHING] * n + list(row[:4])


def solve_marked(row: Symbols) -> list[str | None]:
    half, query = len(row) // 2, row.index("<|query|>")
    marked = [row[i + 1] for i in range(half) if row[i] == "<|marker|>"]
    assert len(marked) == 2 and row[query + 1 :] == marked[:-1]
    noise = [s for s in row if s.startswith("n")]
    assert len(noise) == len(row) - 4 - 2  # two markers, two values, the query and a value shown
    return [NOTHING] * query + list(marked)


SOLVERS: dict[str, Callable[..., list[str | None]]] = {
    "retrieval": solve_retrieval,
    "marked": solve_marked,
    "copy": solve_copy,
    "reverse-copy": solve_reverse_copy,
    "stack": solve_stack,
    "recall": solve_recall,
    "modular": solve_modular,
    "parity": solve_parity,
    "recency": solve_recency,
    "primacy": solve_primacy,
}


def spelled(task: SyntheticTask, ids: list[int]) -> Symbols:
    return [task.symbols[i] for i in ids]


def answers_of(task: SyntheticTask, labels: list[int]) -> list[str | None]:
    return [None if label == -100 else task.symbols[label] for label in labels]


def test_every_task_has_its_solver() -> None:
    assert SOLVERS.keys() == TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_what_a_slow_solver_finds_at_every_length(name: str) -> None:
    """From the shortest on, odd ones too: a length curriculum asks for whatever comes between."""
    shortest = 8 if name in ("recency", "primacy", "marked") else TASKS[name].shortest
    for length in [*range(shortest, shortest + 7), 40, 61]:
        task = make_task(name, length)
        rows = task.__getitems__(range(20))
        assert rows["input_ids"].dtype == rows["shift_labels"].dtype == torch.int64
        assert rows["input_ids"].shape == rows["shift_labels"].shape == (20, length)
        for ids, labels in zip(rows["input_ids"].tolist(), rows["shift_labels"].tolist(), strict=True):
            assert answers_of(task, labels) == SOLVERS[name](spelled(task, ids)), f"{name} at {length}: {ids}"


@pytest.mark.parametrize("name", TASKS)
def test_the_worked_example_of_the_docstring_is_right(name: str) -> None:
    text = TASKS[name].__doc__ or ""
    ids, labels = (
        [int(number) for number in re.findall(r"-?\d+", line)]
        for line in re.findall(r"^ +(?:input_ids|shift_labels) (.*)$", text, re.MULTILINE)
    )
    sizes = {"modular": "num_values=5", "recall": "num_keys=8,num_values=4", "recency": "num_recalled=3"}
    sizes["primacy"] = sizes["recency"]
    task = make_task(f"{name}:{sizes[name]}" if name in sizes else name, len(ids))
    if name in ("recency", "primacy"):
        found = ids[:5][-3:] if name == "recency" else ids[:3]
        assert labels == [-100] * 5 + found and ids[5:] == [8, *found[:2]]
    else:
        solver = SOLVERS[name]
        solved = solver(spelled(task, ids), 5) if name == "modular" else solver(spelled(task, ids))
        assert answers_of(task, labels) == solved


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_more_frequent_than_chance_says(name: str) -> None:
    task = make_task(name, 30)
    labels = task.__getitems__(range(2000))["shift_labels"]
    counts = labels[labels != -100].bincount()
    share = counts.max().item() / counts.sum().item()
    assert share == pytest.approx(task.chance, rel=0.15)


@pytest.mark.parametrize("name", TASKS)
def test_lengths_share_the_vocabulary_and_use_all_of_it(name: str) -> None:
    task = make_task(name, 30)
    ids = task.__getitems__(range(2000))["input_ids"]
    assert set(ids.unique().tolist()) == set(range(task.vocab_size - 1)), "every symbol but <|pad|> occurs"
    assert task.at_length(61).symbols == task.symbols
    assert len(task.tokenizer()) == task.vocab_size
    text = " ".join(spelled(task, ids[0].tolist()))
    assert task.tokenizer()(text)["input_ids"] == ids[0].tolist()


@pytest.mark.parametrize("name", TASKS)
def test_rows_repeat_by_seed_and_differ_between_seeds_and_splits(name: str) -> None:
    def rows(seed: int, split: str) -> list[tuple[int, ...]]:
        ids = make_task(name, 96, split, seed).__getitems__(range(200))["input_ids"]
        return [tuple(row) for row in ids.tolist()]

    assert rows(3, "train") == rows(3, "train")
    every = [row for seed in (0, 1) for split in ("train", "validation") for row in rows(seed, split)]
    assert len(set(every)) == len(every) == 800


def test_stack_walks_are_pushed_and_popped_evenly_and_reach_the_full_depth() -> None:
    task = make_task("stack", 400)
    push = np.where(task.__getitems__(range(500))["input_ids"].numpy() == 4, -1, 1)
    depth = push.cumsum(axis=1)
    assert (depth.min(), depth.max()) == (0, 10)
    inside = (depth[:, :-1] > 0) & (depth[:, :-1] < 10)
    assert (push[:, 1:][inside] == 1).mean() == pytest.approx(0.5, abs=0.01)
    assert (push[:, 1:][depth[:, :-1] == 0] == 1).all() and (push[:, 1:][depth[:, :-1] == 10] == -1).all()


def test_recall_asks_for_each_key_equally_often_in_any_order() -> None:
    """Neither the place of a pair nor the name of its key says whether it is asked for."""
    task = make_task("recall:num_keys=8", 24)
    rows = task.__getitems__(range(4000))["input_ids"]
    place = (rows[:, :16:2, None] == rows[:, None, 16:]).double().mean(dim=(0, 2))
    assert (place - 1 / 8).abs().max() < 0.01
    first = rows[:, 0].bincount(minlength=8) / 4000
    assert (first - 1 / 8).abs().max() < 0.025


def test_a_name_with_sizes_makes_the_task_and_the_task_gives_it_back() -> None:
    task = make_task("recall:num_values=4,num_keys=16", 24, "validation", seed=2)
    assert task.sizes == {"num_keys": 16, "num_values": 4} and task.vocab_size == 21
    assert task.name == "recall:num_keys=16,num_values=4"
    assert make_task(task.name, 24, "validation", seed=2).fingerprint == task.fingerprint
    assert make_task("recall:num_keys=32", 24).name == "recall"
    assert is_task("recall:num_keys=16") and not is_task("recalled") and not is_task("python-docs")
    data = load_data("recall:num_keys=16", sequence_length=24)
    assert data.kind == "task" and data.train.name == "recall:num_keys=16"


def test_fingerprints_tell_tasks_sizes_and_lengths_apart() -> None:
    names = [
        *TASKS,
        "copy:num_values=9",
        "stack:max_depth=9",
        "recall:num_keys=33",
        "recency:num_recalled=3",
        "marked:num_marked=4",
    ]
    prints = {make_task(name, length).fingerprint for name in names for length in (24, 25)}
    assert len(prints) == 2 * len(names)


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("copy", 1, "copy needs sequence_length of at least 2 for one symbol and the separator, but it is 1"),
        ("stack", 1, "at least 2 for one push and one pop"),
        ("modular", 4, "at least 5 for two pairs and one x"),
        ("modular:num_values=6", 16, "prime num_values, so that two pairs tell a and b, not 6"),
        ("recall", 5, "at least 6 for two pairs"),
        (
            "recall",
            99,
            "33 different keys but num_keys is 32; make the length at most 98, or num_keys at least 33",
        ),
        ("recency", 7, "recency of 4 symbols needs sequence_length of at least 8, but it is 7"),
        ("primacy:num_recalled=0", 7, "primacy needs num_recalled of at least 1, but it is 0"),
        ("marked:num_marked=4", 15, "marked with 4 values needs sequence_length of at least 16, but it is 15"),
        ("stack:max_depth=0", 7, "stack needs max_depth of at least 1, but it is 0"),
        ("copy:num_values=1", 7, "copy needs num_values of at least 2, but it is 1"),
        ("parity:num_values=3", 7, "'parity' has no size 'num_values'; it has none"),
        (
            "recall:keys=3",
            9,
            "'recall' has no size 'keys'; it has num_keys, num_values, given as recall:size=n",
        ),
        ("copy:num_values=many", 9, "num_values of 'copy' must be a whole number, not 'many'"),
    ],
)
def test_tasks_that_cannot_be_are_refused_in_one_sentence(name: str, length: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_task(name, length)


def test_the_definitions_are_frozen() -> None:
    """Published numbers name these tasks: their rows may never change unnoticed."""
    rows = {name: make_task(name, 9)[7]["input_ids"].tolist() for name in TASKS}
    assert rows == FROZEN


FROZEN = {
    "retrieval": [10, 14, 8, 2, 10, 12, 17, 16, 9],
    "marked": [8, 4, 8, 2, 10, 12, 17, 9, 4],
    "copy": [0, 4, 0, 2, 8, 0, 4, 0, 2],
    "reverse-copy": [0, 4, 0, 2, 8, 2, 0, 4, 0],
    "stack": [0, 4, 1, 4, 0, 4, 2, 4, 0],
    "recall": [12, 36, 23, 39, 22, 39, 22, 12, 22],
    "modular": [0, 2, 3, 0, 0, 2, 6, 5, 4],
    "parity": [0, 0, 0, 0, 0, 0, 1, 0, 1],
    "recency": [0, 4, 0, 2, 0, 8, 4, 0, 2],
    "primacy": [0, 4, 0, 2, 0, 8, 0, 4, 0],
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", sorted(TASKS))
def test_absurd_sizes_and_lengths_are_refused_at_once(name: str) -> None:
    for size in TASKS[name].size_names():
        for number in (10**12, 2**16 + 1, -1):
            with pytest.raises(ValueError, match=f"{name} needs {size} of at (most|least) .*{number}"):
                make_task(f"{name}:{size}={number}", 2**10)
    with pytest.raises(ValueError, match=f"sequence_length of {name} is {10**12}"):
        make_task(name, 10**12)


@pytest.mark.parametrize("number", ["1e3", "10**12", "nan", "", "9" * 5000])
def test_sizes_that_are_no_whole_numbers_are_refused(number: str) -> None:
    with pytest.raises(ValueError, match="num_values of 'retrieval' must be a whole number"):
        make_task(f"retrieval:num_values={number}", 16)


def test_a_size_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="num_values of 'retrieval' is given twice"):
        make_task("retrieval:num_values=4,num_values=8", 16)


def test_marked_values_are_of_uniform_and_distinct_pairs() -> None:
    rows = make_task("marked:num_marked=4", 64).__getitems__(range(2000))
    places = (rows["input_ids"] == 8).float()
    assert (places.sum(1) == 4).all() and places[:, 1::2].sum() == 0 and places[:, 32:].sum() == 0
    assert (places[:, :32:2].mean(0) - 4 / 16).abs().max() < 0.04  # four standard deviations
    answers = rows["shift_labels"][:, -4:].flatten().bincount(minlength=8) / 8000
    assert (answers - 1 / 8).abs().max() < 0.015
