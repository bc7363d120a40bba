"""`load_data`: one door to tasks and text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smt_hf.data import RetrievalTask, TokenWindows, byte_tokenizer, load_data

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i}\n" for i in range(200)))
    return str(path)


def test_a_task_brings_its_own_tokenizer_and_splits() -> None:
    data = load_data("retrieval", byte_tokenizer(), sequence_length=16, seed=2)
    assert data.kind == "task"
    assert isinstance(data.train, RetrievalTask) and isinstance(data.validation, RetrievalTask)
    assert (data.train.split, data.validation.split) == ("train", "validation")
    assert (data.train.seed, data.validation.seed) == (2, 2)
    assert len(data.tokenizer) == data.train.vocab_size


def test_text_is_bytes_unless_told_otherwise(text_file: str, tmp_path: Path) -> None:
    data = load_data(text_file, sequence_length=16)
    assert data.kind == "text" and data.name == text_file
    assert isinstance(data.train, TokenWindows) and isinstance(data.validation, TokenWindows)
    text = Path(text_file).read_text()
    assert data.tokenizer.decode(data.train[0]["input_ids"]) == text[:16]
    assert data.tokenizer.decode(data.validation[-1]["shift_labels"]) == text[-16:]

    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    for tokenizer in (byte_tokenizer(), "byte", str(tmp_path / "tokenizer")):
        same = load_data(text_file, tokenizer, sequence_length=16)
        assert same.fingerprint == data.fingerprint


def test_the_fingerprint_follows_the_tokens(text_file: str) -> None:
    data = [
        load_data(text_file, sequence_length=16),
        load_data(text_file, sequence_length=16, max_corpus_bytes=1000),
        load_data(text_file, sequence_length=16, validation_fraction=0.2),
        load_data("retrieval", sequence_length=16),
        load_data("retrieval", sequence_length=16, seed=1),
    ]
    assert len({one.fingerprint for one in data}) == len(data)
    assert load_data(text_file, sequence_length=16).fingerprint == data[0].fingerprint


def test_both_kinds_offer_the_same_attributes(text_file: str) -> None:
    for name in ("retrieval", text_file):
        data = load_data(name, sequence_length=16)
        for split in (data.train, data.validation):
            assert split.sequence_length == 16
            assert split.at_length(8)[0]["input_ids"].shape == (8,)
            assert max(split[0]["input_ids"].tolist()) < split.vocab_size
            assert split.metric == ("accuracy" if name == "retrieval" else "bits_per_byte")
            assert (split.bytes_per_token is None) == (name == "retrieval")
            assert split.name == name


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ValueError) as error:
        load_data("retreival", sequence_length=16)
    sentence = str(error.value)
    assert sentence.startswith("'retreival' could not be read")
    for choice in ("retrieval", "'python-docs'", "file or folder", "datasets name"):
        assert choice in sentence


def test_importing_the_room_loads_no_heavy_library() -> None:
    """`import smt_hf` itself brings transformers, so the room is imported from its own folder."""
    program = (
        "import sys, types\n"
        "package = types.ModuleType('smt_hf'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['smt_hf'] = package\n"
        "import smt_hf.data\n"
        "heavy = {'transformers', 'tokenizers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    root = str(Path(__file__).resolve().parents[2] / "smt_hf")
    result = subprocess.run(
        [sys.executable, "-c", program, root], capture_output=True, text=True, env=dict(os.environ)
    )
    assert result.returncode == 0, result.stderr
