"""Which files a name stands for: a file is what its suffix says, whatever lies beside it."""

import bz2
import gzip
import json
import logging
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pytest

from smt_hf.data import load_data, read_documents
from smt_hf.data.files import find

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path_factory.mktemp("packed")))


ROW = '{"text": "a row"}\n'


def write(root: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(root)


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize(
    "stray", ["x.csv", "package.json", "x.jsonl", "data/x.csv", "deep/er/x.parquet", "x.csv.gz"]
)
def test_a_stray_table_among_texts_is_refused_by_name_and_never_decides(tmp_path: Path, stray: str) -> None:
    texts: dict[str, str | bytes] = {f"{i}.txt": f"one\ntwo {i}\n" for i in range(3)}
    folder = write(tmp_path, {**texts, stray: ROW})
    with pytest.raises(ValueError) as error:
        read_documents(folder)
    sentence = str(error.value)
    assert "3 text files" in sentence and "1 table" in sentence and repr(Path(stray).name) in sentence
    pattern = sentence.split("such as ")[-1].rstrip(".").strip("'")
    assert list(read_documents(pattern)) == list(texts.values()), "what the sentence advises works"


def test_a_readme_beside_tables_describes_them_and_beside_texts_is_one(tmp_path: Path) -> None:
    tables = write(tmp_path / "tables", {"a.jsonl": ROW, "README.md": "about", "dataset_infos.json": "{}"})
    assert list(read_documents(tables)) == ["a row"]
    texts = write(tmp_path / "texts", {"a.txt": "A", "README.md": "about"})
    assert list(read_documents(texts)) == ["about", "A"]


def test_tables_of_different_formats_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.jsonl": ROW, "b.json": ROW, "c.csv": "text\nx\n"})
    with pytest.raises(ValueError, match=r"2 tables \(such as 'a.jsonl'\) and 1 table \(such as 'c.csv'\)"):
        read_documents(folder)


def test_files_of_other_kinds_do_not_decide_how_tables_are_read(tmp_path: Path) -> None:
    """`datasets` takes a folder for what most of its files are."""
    pictures: dict[str, str | bytes] = {f"{i}.png": b"x" for i in range(5)}
    folder = write(tmp_path, {"a.jsonl": ROW, **pictures})
    assert list(read_documents(folder)) == ["a row"]


def test_a_card_that_names_the_data_decides(tmp_path: Path) -> None:
    card = "---\nconfigs:\n- config_name: default\n  data_files: b.csv\n---\nabout\n"
    folder = write(tmp_path, {"README.md": card, "a.jsonl": ROW, "b.csv": "text\nx\n"})
    assert list(read_documents(folder)) == ["x"]


def test_tsv_and_ndjson_are_tables_too(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a/x.tsv": "text\tn\none\t1\n", "b/x.ndjson": ROW})
    assert list(read_documents(folder + "/a")) == list(read_documents(folder + "/a/x.tsv")) == ["one"]
    assert list(read_documents(folder + "/b/x.ndjson")) == ["a row"]


def test_a_pattern_chooses_among_files_and_one_that_matches_none_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.md": "A", "deep/b.md": "B", "c.txt": "C", "d.jsonl": ROW})
    assert list(read_documents(f"{folder}/**/*.md")) == ["A", "B"]
    assert list(read_documents(f"{folder}/*.jsonl")) == ["a row"]
    with pytest.raises(ValueError, match=r"no file matches '.*\*\.tex'"):
        read_documents(f"{folder}/*.tex")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_text_is_read_alone_and_in_folders(tmp_path: Path, suffix: str) -> None:
    text = "naïve\r\n" * 9
    folder = write(tmp_path, {f"a.txt{suffix}": COMPRESS[suffix](text.encode()), "b.md": "B"})
    assert list(read_documents(folder)) == [text, "B"]
    assert list(read_documents(f"{folder}/a.txt{suffix}")) == [text]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("streaming", [False, True])
def test_compressed_tables_are_read_alone_and_in_folders(tmp_path: Path, suffix: str, streaming: bool) -> None:
    compress = COMPRESS[suffix]
    folder = write(tmp_path, {f"a.jsonl{suffix}": compress(ROW.encode()), f"b.jsonl{suffix}": compress(b"")})
    assert list(read_documents(f"{folder}/a.jsonl{suffix}", streaming=streaming)) == ["a row"]
    folder = write(tmp_path / "csv", {f"a.csv{suffix}": compress(b"text\nx\n")})
    assert list(read_documents(folder, streaming=streaming)) == ["x"]


def test_tables_in_zstd_are_read_or_name_the_package_that_reads_them(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.jsonl.zst": zstd(ROW.encode())})
    try:
        assert list(read_documents(folder)) == ["a row"]
    except ValueError as error:
        assert "zstandard" in str(error) and folder in str(error)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], "damaged"),
        ("a.txt.zst", zstd(b"text" * 99)[:-5], "damaged"),
        ("a.txt.xz", b"no xz", "damaged"),
        ("a.txt", gzip.compress(b"text", mtime=0), ".gz"),
        ("a.txt", b"\xff\xfea\0b\0", "UTF-16"),
        ("a.txt", b"%PDF-1.4 \xff", "PDF"),
        ("a.docx", b"PK\x03\x04\xff", ".txt"),
        ("a.bin", b"\x00\xff\x00", "binary"),
        ("a.zip", b"PK", "unpack"),
        ("a.tar.gz", b"x", "unpack"),
        ("a.json", b'{"text": ', "could not be read as json"),
        ("a.parquet", b"PAR1", "could not be read as parquet"),
        ("a.jsonl", b'{"text": "\xff"}\n', "utf-8"),
        ("a.csv", b"", "could not be read as csv"),
    ],
)
def test_a_file_that_is_damaged_or_no_text_is_named_with_a_true_reason(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = write(tmp_path, {name: content}) + f"/{name}"
    with pytest.raises(ValueError) as error:
        list(read_documents(path))
    sentence = str(error.value)
    assert path in sentence and said in sentence and "\n" not in sentence
    assert "Traceback" not in sentence and "datasets name" not in sentence


def test_a_damaged_table_that_streams_names_the_data(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"row {i}" * 99}) + "\n" for i in range(50_000))
    path = write(tmp_path, {"a.jsonl.gz": gzip.compress(rows.encode())[:-50_000]}) + "/a.jsonl.gz"
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz"):
        list(read_documents(path, streaming=True))


def test_what_is_read_and_what_is_left_out_is_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, {"a.txt": "A" * 500, "b.md": "B" * 500, "c.log": "C", "d.png": b"\0"})
    with caplog.at_level(logging.INFO, "smt_hf"):
        for _ in range(2):  # read, then found packed
            load_data(folder, sequence_length=8)
    assert [record.message for record in caplog.records] == [
        f"{folder}: reading 2 text files; leaving out 2 other files"
    ] * 2
    caplog.clear()
    load_data(f"{folder}/a.txt", sequence_length=8)
    assert not caplog.records, "one file is plain"


def test_folders_that_cannot_be_opened_or_are_links_are_said(tmp_path: Path, monkeypatch) -> None:
    folder = write(tmp_path / "corpus", {"a.txt": "A", "closed/b.txt": "B"})
    os.symlink(write(tmp_path / "elsewhere", {"c.txt": "C"}), tmp_path / "corpus" / "link")
    os.symlink("nowhere", tmp_path / "corpus" / "broken.txt")
    scandir = os.scandir

    def closed(path):  # permissions do not stop root
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = find(folder)
    assert found is not None and [path.name for path in found.files] == ["a.txt"]
    said = found.said(folder)
    assert "1 text file" in said and "closed" in said and "Permission denied" in said and "link" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a.txt": "A"})
    os.mkfifo(tmp_path / "b.txt")
    assert list(read_documents(folder)) == ["A"]


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_current_folder(name: str) -> None:
    with pytest.raises(ValueError, match=f"the name of the data is '{name}'"):
        read_documents(name)


@pytest.mark.parametrize("content", ["3", "", '{"text": '])
def test_a_table_that_cannot_be_read_is_said_once(tmp_path: Path, content: str, capfd) -> None:
    """`datasets` logs such errors, and raises them."""
    write(tmp_path, {"a.jsonl": content})
    with pytest.raises(ValueError, match=r"'.*jsonl' could not be read as json"):
        read_documents(str(tmp_path / "a.jsonl"))
    assert "Failed" not in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"text_column": "body"}])
def test_text_has_no_splits_and_no_columns(tmp_path: Path, arguments: dict[str, str]) -> None:
    folder = write(tmp_path, {"a.txt": "A"})
    for name in (folder, f"{folder}/a.txt", "python-docs"):
        with pytest.raises(ValueError, match=f"has no .*{next(iter(arguments.values()))}.*only tables"):
            read_documents(name, **arguments)  # type: ignore[arg-type]
