"""Corpora: which documents a name gives, and a split that never leaks."""

import json
import random
import sys
import types
from collections import Counter
from pathlib import Path

import datasets
import pytest

from smt_hf.data import corpora, read_documents, split_documents

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _datasets_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    cache = str(tmp_path_factory.mktemp("datasets"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return str(root)


def test_a_file_is_one_document_byte_for_byte(tmp_path: Path) -> None:
    text = "one\r\n\r\n\n two — ü\n"
    write(tmp_path, {"verse.txt": text})
    assert list(read_documents(str(tmp_path / "verse.txt"))) == [text]


def test_a_folder_gives_its_text_files_sorted(tmp_path: Path) -> None:
    files = {
        "b.md": "B",
        "a.txt": "A",
        "a/z.rst": "Z",
        "c/d.PY": "D",
        "image.png": "no",
        ".git/x.txt": "no",
        "c/.hidden.md": "no",
        "empty.txt": "",
    }
    assert list(read_documents(write(tmp_path, files))) == ["Z", "A", "B", "D"]


def test_tables_are_read_by_column(tmp_path: Path) -> None:
    rows = [{"text": "one", "title": "I"}, {"text": None, "title": "II"}, {"text": "three"}]
    lines = "\n".join(map(json.dumps, rows))
    folder = write(tmp_path / "table", {"data/train.jsonl": lines, "README.md": "no"})
    assert list(read_documents(folder)) == ["one", "three"]
    assert list(read_documents(folder, streaming=True)) == ["one", "three"]
    assert list(read_documents(folder, text_column="title")) == ["I", "II"]
    assert list(read_documents(folder + "/data/train.jsonl")) == ["one", "three"]


def test_parquet_and_csv_files_are_tables(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["p", "q"]}).to_parquet(tmp_path / "t.parquet")
    write(tmp_path, {"t.csv": "text,n\nc,1\nd,2\n"})
    assert list(read_documents(str(tmp_path / "t.parquet"))) == ["p", "q"]
    assert list(read_documents(str(tmp_path / "t.csv"))) == ["c", "d"]


def test_a_hub_name_may_carry_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*names: str, **options: object) -> datasets.Dataset:
        calls.append((names, options))
        return datasets.Dataset.from_dict({"text": ["x"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_documents("who/what:raw", split="test", streaming=True)) == ["x"]
    assert list(read_documents("who/what")) == ["x"]
    assert calls == [
        (("who/what", "raw"), {"split": "test", "streaming": True}),
        (("who/what",), {"split": "train", "streaming": False}),
    ]


def test_max_bytes_stops_at_a_whole_character(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.txt": "abcd", "b.txt": "éé", "c.txt": "never"})
    assert list(read_documents(folder, max_bytes=7)) == ["abcd", "é"]
    assert list(read_documents(folder, max_bytes=4)) == ["abcd"]
    assert list(read_documents(folder, max_bytes=1000)) == ["abcd", "éé", "never"]
    with pytest.raises(ValueError, match="max_bytes must be at least 1 or None, but it is 0"):
        read_documents(folder, max_bytes=0)


def test_python_docs_are_topics_then_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = types.SimpleNamespace(topics={"b": "topic b " * 5, "a": "topic a " * 5, "s": "short"})
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", topics)
    source = (
        '"""The docstring of the module."""\n'
        'class A:\n    """The docstring of the class."""\n'
        '    async def f(self):\n        """The docstring of the method."""\n'
        '    def g(self):\n        """Too short."""\n'
        '    def h(self):\n        """The docstring of the class."""\n'
        '    def i(self):\n        """A lone surrogate, \\ud800, is no text."""\n'
        '    def j(self):\n        """A bad escape \\d is only a warning."""\n'
    )
    skipped = '"""This docstring belongs to no prose."""'
    names = ["test/t.py", "site-packages/p/q.py", "json/tests/t.py", "idlelib/i.py", "lib2to3/l.py"]
    files = {name: skipped for name in names} | {"pkg/m.py": source, "broken.py": "def ("}
    monkeypatch.setattr(corpora, "_library_root", lambda: Path(write(tmp_path, files)))
    assert list(read_documents("python-docs")) == [
        "topic a " * 5,
        "topic b " * 5,
        "The docstring of the module.",
        "The docstring of the class.",
        "The docstring of the method.",
        "A bad escape \\d is only a warning.",
    ]


@pytest.mark.slow
def test_the_real_python_docs_are_two_megabytes_of_prose() -> None:
    documents = list(read_documents("python-docs"))
    assert sum(len(text.encode()) for text in documents) > 1_500_000
    assert len(set(documents)) == len(documents)


def shuffled(items: list[str]) -> list[str]:
    return random.Random(0).sample(items, len(items))


def test_no_text_is_on_both_sides_even_when_documents_repeat() -> None:
    documents = shuffled([f"document {i % 400}" for i in range(1000)])
    sides: dict[str, set[str]] = {}
    counts = Counter(split_documents(documents))
    for (split, text), count in counts.items():
        assert count == 1, "repeated documents are dropped"
        sides.setdefault(text, set()).add(split)
    assert set(sides) == set(documents)
    assert all(len(splits) == 1 for splits in sides.values())


def test_the_share_of_validation_is_about_the_fraction() -> None:
    documents = [f"document {i}" for i in range(4000)]
    splits = Counter(split for split, _ in split_documents(documents, 0.1))
    assert abs(splits["validation"] / 4000 - 0.1) < 0.02  # four standard deviations


def test_new_documents_do_not_move_the_old_ones() -> None:
    old = [f"document {i}" for i in range(200)]
    before = dict((text, split) for split, text in split_documents(old))
    after = dict((text, split) for split, text in split_documents(old + [f"new {i}" for i in range(200)]))
    assert before == {text: after[text] for text in old}


@pytest.mark.parametrize("seed", range(10))
def test_twenty_documents_always_leave_one_for_validation(seed: int) -> None:
    pairs = list(split_documents(f"{seed} {i}" for i in range(20)))
    assert 0 < sum(split == "validation" for split, _ in pairs) < 20


def test_one_document_is_split_by_position() -> None:
    text = "".join(chr(i) for i in range(1000, 1200))
    pairs = dict(split_documents([text]))
    assert pairs == {"train": text[:190], "validation": text[190:]}


def test_few_documents_are_split_by_position_over_all_characters() -> None:
    pairs = list(split_documents(["a" * 50, "b" * 30, "b" * 30, "c" * 20], 0.3))
    assert pairs == [
        ("train", "a" * 50),
        ("train", "b" * 20),
        ("validation", "b" * 10),
        ("validation", "c" * 20),
    ]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1, but it is"):
        split_documents(["a"], fraction)


def test_the_identity_follows_the_files(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.txt": "A", "b/c.md": "C", "notes.log": "x"})
    before = corpora.corpus_identity(folder)
    write(tmp_path, {"notes.log": "not part of the corpus"})
    assert corpora.corpus_identity(folder) == before
    write(tmp_path, {"b/c.md": "CC"})
    changed = corpora.corpus_identity(folder)
    assert changed != before
    write(tmp_path, {"d.txt": "D"})
    assert corpora.corpus_identity(folder) not in (before, changed)


def test_a_file_that_is_not_utf8_is_named_with_the_offset(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match=r"bad\.txt' is not UTF-8 at byte 3; convert it"):
        list(read_documents(str(tmp_path)))


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    folder = write(tmp_path, {"t.jsonl": '{"body": "x", "n": 1}\n'})
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"no column 'text'; choose .* among 'body', 'n'"):
            list(read_documents(folder, streaming=streaming))
    with pytest.raises(ValueError, match=r"'n' of .* holds int, not text"):
        list(read_documents(folder, text_column="n"))


def test_an_empty_corpus_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.txt": "", "b.log": "x"})
    with pytest.raises(ValueError, match=r"holds no text; .* ending in .*\.txt"):
        list(read_documents(folder))


def test_an_unknown_name_or_split_is_named_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing' could not be read .*retrieval.*python"):
        read_documents("nobody/nothing")
    folder = write(tmp_path, {"t.jsonl": '{"text": "x"}\n'})
    with pytest.raises(ValueError, match=r'Unknown split "dev".* with a split that it has'):
        read_documents(folder, split="dev")
