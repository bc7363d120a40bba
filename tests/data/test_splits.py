"""Validation: a split of the data's own, a chosen one, or a part; and all of the data, to judge a model on."""

import json
import logging
from pathlib import Path

import datasets
import pytest

from smt_hf.data import TokenWindows, byte_tokenizer, load_data, load_evaluation_data, split_documents
from smt_hf.data.tables import by_split

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path_factory.mktemp("packed")))


def jsonl(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Sixty documents to train on, one of which is validated on too, and a test split."""
    (tmp_path / "table").mkdir()
    splits = {
        "train": [*(f"document number {i}." for i in range(60)), "in both."],
        "validation": ["held out.", "in both.", "held out."],
        "test": ["tested on this."],
    }
    for split, texts in splits.items():
        (tmp_path / "table" / f"{split}.jsonl").write_text(jsonl(*texts))
    return str(tmp_path / "table")


def text_of(data: object) -> list[str]:
    assert isinstance(data, TokenWindows)
    return str(byte_tokenizer().decode(data._tokens.tolist())).split("<|endoftext|>")


def test_a_validation_split_of_its_own_is_all_of_validation_and_none_of_training(
    table: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "smt_hf"):
        data = load_data(table, sequence_length=4)
    assert text_of(data.validation) == ["held out.", "in both."]
    assert text_of(data.train) == [f"document number {i}." for i in range(60)]
    assert f"{table}: validation is its own split 'validation'" in caplog.messages
    streamed = load_data(table, sequence_length=4, streaming=True)
    assert streamed.fingerprint == data.fingerprint


def test_a_validation_split_can_be_chosen_and_the_split_itself_means_a_part_of_it(table: str) -> None:
    assert text_of(load_data(table, sequence_length=4, validation_split="test").validation) == [
        "tested on this."
    ]
    part = load_data(table, sequence_length=4, validation_split="train")
    both = text_of(part.train) + text_of(part.validation)
    assert sorted(both) == sorted([*(f"document number {i}." for i in range(60)), "in both."])


def test_a_limit_holds_for_both_sides_together(table: str) -> None:
    data = load_data(table, sequence_length=4, max_corpus_bytes=100, validation_fraction=0.08)
    assert "".join(text_of(data.validation)) == "held out"
    assert len("".join(text_of(data.train))) == 92


@pytest.mark.parametrize("split", ["dev", "validation[:1%]"])
def test_a_validation_split_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, split: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(jsonl("a", "b"))
    with pytest.raises(ValueError) as error:
        load_data(str(path), sequence_length=4, validation_split=split)
    assert repr(split) in str(error.value) and "it has train" in str(error.value)


def test_what_has_no_splits_refuses_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc" * 99)
    for name in (str(tmp_path), str(tmp_path / "a.txt"), "python-docs"):
        with pytest.raises(ValueError, match=r"validation_split 'test' .* it has none"):
            load_data(name, sequence_length=4, validation_split="test")
    with pytest.raises(ValueError, match="validation_split is 'test', but 'retrieval' is a task"):
        load_data("retrieval", sequence_length=16, validation_split="test")


def test_all_of_a_text_is_judged_repetitions_too(tmp_path: Path) -> None:
    path = tmp_path / "held_out.txt"
    path.write_text("0123456789" * 50)
    data = load_evaluation_data(str(path), sequence_length=10)
    assert (data.part, data.kind, text_of(data.validation)) == ("all", "text", [path.read_text()])
    (tmp_path / "again.txt").write_text(path.read_text())
    assert text_of(load_evaluation_data(str(tmp_path), sequence_length=10).validation) == [path.read_text()] * 2
    part = load_data(str(path), sequence_length=10)
    assert text_of(part.validation) == [path.read_text()[-25:]] and part.part == "validation"


def test_of_a_table_its_validation_is_judged_or_the_split_that_is_asked_for(table: str, tmp_path: Path) -> None:
    judged = load_evaluation_data(table, sequence_length=4)
    assert text_of(judged.validation) == ["held out.", "in both.", "held out."]
    assert text_of(load_evaluation_data(table, sequence_length=4, split="test").validation) == [
        "tested on this."
    ]
    (tmp_path / "table" / "validation.jsonl").unlink()
    assert text_of(load_evaluation_data(table, sequence_length=4).validation) == ["tested on this."]


def test_a_task_is_judged_on_its_validation_rows() -> None:
    data = load_evaluation_data("retrieval", sequence_length=16, seed=3)
    same = load_data("retrieval", sequence_length=16, seed=3)
    assert data.fingerprint == same.validation.fingerprint


def test_held_out_documents_are_never_trained_on_in_whatever_order() -> None:
    pairs = list(split_documents(["a", "b", "a", "c"], held_out=["c", "d", "d"]))
    assert pairs == [("validation", "c"), ("validation", "d"), ("train", "a"), ("train", "b")]


def test_files_belong_to_the_split_that_their_path_says(tmp_path: Path) -> None:
    names = ["data/train-0001.parquet", "dev/x.parquet", "my_test.parquet", "latest.parquet", "x.parquet"]
    found = by_split(str(tmp_path), [tmp_path / name for name in names])
    assert {split: [Path(file).name for file in files] for split, files in found.items()} == {
        "train": ["train-0001.parquet", "latest.parquet", "x.parquet"],
        "validation": ["x.parquet"],
        "test": ["my_test.parquet"],
    }
    pattern = str(tmp_path / "my_*.parquet")
    assert list(by_split(pattern, [tmp_path / "my_test.parquet"])) == ["train"]
    alone = tmp_path / "test.jsonl"
    assert by_split(str(alone), [alone]) == {"train": [str(alone)]}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("retrieval", {"streaming": True}),
        ("retrieval", {"max_corpus_bytes": 100}),
        ("retrieval", {"split": "test"}),
        ("retrieval", {"text_column": "body"}),
        ("retrieval", {"image_column": "image"}),
        ("retrieval", {"grey_levels": 4}),
        ("python-docs", {"grey_levels": 4}),
        ("digits", {"text_column": "body"}),
        ("digits", {"streaming": True}),
        ("digits", {"image_column": "image"}),
        ("digits", {"tokenizer": "byte"}),
        ("retrieval", {"tokenizer": "byte"}),
        ("python-docs", {"streaming": True}),
        (__file__, {"streaming": True}),
    ],
)
def test_an_argument_that_the_kind_has_no_use_for_is_refused(name: str, arguments: dict) -> None:
    for load in (load_data, load_evaluation_data):
        with pytest.raises(ValueError) as error:
            load(name, sequence_length=16, **arguments)
        (key, value), *_ = arguments.items()
        assert f"{key} is {value!r}" in str(error.value) and repr(name) in str(error.value)


def test_a_share_of_validation_is_refused_by_a_task_which_draws_its_own() -> None:
    with pytest.raises(ValueError, match=r"validation_fraction is 7, but 'retrieval' is a task"):
        load_data("retrieval", sequence_length=16, validation_fraction=7)


def test_digits_have_no_split_to_judge() -> None:
    with pytest.raises(ValueError, match="'digits' has no splits"):
        load_evaluation_data("digits", sequence_length=None, split="test")
