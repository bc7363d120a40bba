"""Packed windows, compared with a slow loop over the same text; and a cache that is whole."""

import errno
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import smt_hf
from smt_hf.data import byte_tokenizer, corpora, keep_batch, load_windows, packed_file, split_documents
from smt_hf.data.packed_file import _encode, pack, temporary_folder
from smt_hf.data.packing import TokenWindows
from smt_hf.data.tokenizer import symbol_tokenizer

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")

DOCUMENTS = [f"Document {i}: " + "é🙂x" * (i % 7 + 1) for i in range(60)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i, text in enumerate(DOCUMENTS):
        (folder / f"{i:03}.txt").write_text(text, "utf-8")
    return str(folder)


def tokens_of(split: str, documents: list[str] = DOCUMENTS) -> list[int]:
    """The slow reference: bytes of the split's documents with 256 between them."""
    parts = [list(text.encode()) for side, text in split_documents(documents) if side == split]
    return [token for part in parts for token in [256, *part]][1:]


@pytest.mark.parametrize("split", [0, 1], ids=["train", "validation"])
def test_windows_equal_a_slow_loop(corpus: str, split: int) -> None:
    windows = load_windows(corpus, byte_tokenizer(), sequence_length=16)[split]
    tokens = tokens_of(windows.split)
    assert windows.num_tokens == len(tokens)
    assert len(windows) == len(tokens) - 16
    batch = windows.__getitems__(range(len(windows)))
    for i in range(len(windows)):
        assert batch["input_ids"][i].tolist() == tokens[i : i + 16]
        assert batch["shift_labels"][i].tolist() == tokens[i + 1 : i + 17]
    last = windows[-1]
    assert last["shift_labels"].tolist() == tokens[-16:]
    assert last["input_ids"].dtype == torch.int64


def test_blocks_judge_each_token_once(corpus: str) -> None:
    _, validation = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    tokens = tokens_of("validation")
    for length in range(1, 20):  # some of them divide the number of tokens: 1 does
        input_ids, shift_labels = validation.blocks(length)
        count = (len(tokens) - 1) // length
        assert input_ids.shape == shift_labels.shape == (count, length)
        assert input_ids.flatten().tolist() == tokens[: count * length]
        assert shift_labels.flatten().tolist() == tokens[1 : count * length + 1]
    assert torch.equal(validation.blocks(19, max_blocks=2)[1], shift_labels[:2])
    whole, _ = validation.blocks(len(tokens) - 1)
    assert whole.shape == (1, len(tokens) - 1)


def test_bytes_per_token_counts_text_and_not_separators(corpus: str) -> None:
    for windows in load_windows(corpus, byte_tokenizer(), sequence_length=16):
        texts = [text for side, text in split_documents(DOCUMENTS) if side == windows.split]
        num_bytes = sum(len(text.encode()) for text in texts)
        assert windows.num_tokens == num_bytes + len(texts) - 1
        assert windows.bytes_per_token == num_bytes / windows.num_tokens


def test_a_single_document_is_one_token_per_byte(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("abcdé" * 40, "utf-8")
    train, validation = load_windows(
        str(tmp_path / "one.txt"), byte_tokenizer(), sequence_length=4, validation_fraction=0.1
    )
    assert (train.bytes_per_token, validation.bytes_per_token) == (1.0, 1.0)
    assert (train.num_tokens, validation.num_tokens) == (216, 24)


def test_other_lengths_share_the_tokens(corpus: str) -> None:
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    longer = train.at_length(50)
    assert len(longer) == train.num_tokens - 50
    assert longer[3]["input_ids"].tolist() == tokens_of("train")[3:53]
    assert longer.fingerprint == train.fingerprint
    assert (longer.name, longer.metric, longer.vocab_size) == (corpus, "bits_per_byte", 258)


def test_copies_reopen_the_file_instead_of_carrying_the_tokens(corpus: str) -> None:
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    data = pickle.dumps(train)
    assert len(data) < train.num_tokens
    assert torch.equal(pickle.loads(data)[9]["input_ids"], train[9]["input_ids"])


def test_a_data_loader_gives_stacked_batches(corpus: str) -> None:
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    batch = next(iter(DataLoader(train, batch_size=3, collate_fn=keep_batch)))
    assert batch["input_ids"].tolist() == [tokens_of("train")[i : i + 16] for i in range(3)]
    with pytest.raises(IndexError, match="is outside a dataset of"):
        train[len(train)]


def test_the_fast_path_equals_the_tokenizer() -> None:
    tokenizer = byte_tokenizer()
    texts = [*DOCUMENTS, "a <|endoftext|> b <|pad|>", "\x00\x7f\r\n  ", "中文 — “quoted”"]
    for (_, size, ids), text in zip(
        _encode([("train", text) for text in texts], tokenizer), texts, strict=True
    ):
        expected = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids.tolist() == expected
        assert tokenizer.decode(expected) == text
        assert size == len(text.encode())


def small_tokenizer() -> Any:
    tokenizer = symbol_tokenizer(["zero", "one", "two", "<|end|>"])
    tokenizer.eos_token = "<|end|>"
    return tokenizer


def test_other_tokenizers_are_used_as_they_are(tmp_path: Path) -> None:
    documents = ["zero one", "two", "one <|end|> two"]
    path = tmp_path / "packed.arrow"
    pack([("train", text) for text in documents], small_tokenizer(), path)
    train = TokenWindows(path, "train", 3, "words")
    assert train.blocks(7)[0].tolist() == [[0, 1, 3, 2, 3, 1, 3]]
    assert train.vocab_size == 5
    assert train.bytes_per_token == (8 + 3 + 15) / 8


def test_the_letters_of_a_special_token_stay_letters(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["the"])  # so that the tokenizer itself has to be asked
    path = tmp_path / "packed.arrow"
    pack([("train", "the <|pad|>"), ("train", "z")], tokenizer, path)
    tokens = [258, *b" <|pad|>", 256, *b"z"]
    train = TokenWindows(path, "train", 3, "letters")
    assert train.blocks(len(tokens) - 1)[0][0].tolist() == tokens[:-1]
    assert (train.num_tokens, train.vocab_size) == (len(tokens), 259)


def test_large_vocabularies_take_32_bits(tmp_path: Path) -> None:
    tokenizer: Any = symbol_tokenizer([f"w{i}" for i in range(70_000)])
    tokenizer.eos_token = "w0"
    path = tmp_path / "packed.arrow"
    pack([("train", "w69999 w1"), ("train", "w65536")], tokenizer, path)
    windows = TokenWindows(path, "train", 3, "words")
    assert windows[0]["input_ids"].tolist() == [69_999, 1, 0]
    assert windows[0]["shift_labels"].tolist() == [1, 0, 65_536]


def test_the_corpus_is_read_once(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)

    def never(*_: object, **__: object) -> Iterator[str]:
        raise AssertionError("the corpus was read again")

    monkeypatch.setattr(corpora, "read_documents", never)
    second, _ = load_windows(corpus, byte_tokenizer(), sequence_length=20)
    assert second.fingerprint == first.fingerprint
    for options in ({"validation_fraction": 0.2}, {"max_corpus_bytes": 500}, {"split": "test"}):
        with pytest.raises(AssertionError, match="read again"):
            load_windows(corpus, byte_tokenizer(), sequence_length=16, **options)
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|pad|>"
    with pytest.raises(AssertionError, match="read again"):
        load_windows(corpus, tokenizer, sequence_length=16)


def test_a_changed_corpus_is_read_again(corpus: str) -> None:
    before, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    Path(corpus, "more.txt").write_text("something new " * 9, "utf-8")
    after, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    assert after.fingerprint != before.fingerprint


def test_an_interrupted_packing_leaves_nothing_behind(
    corpus: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[str]:
        yield from DOCUMENTS[:40]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpora, "read_documents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_windows(corpus, byte_tokenizer(), sequence_length=16)
    assert list(cache.iterdir()) == []
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    assert train.num_tokens == len(tokens_of("train"))
    assert list(cache.iterdir()) == [train.path]


def test_what_a_killed_packing_left_is_removed_at_the_next_start(corpus: str, cache: Path) -> None:
    """And nothing else: neither a packing that goes on, nor what is not ours."""
    program = (
        "import sys, types, os, signal, pathlib\n"
        "package = types.ModuleType('smt_hf'); package.__path__ = [sys.argv[1]]\n"
        "sys.modules['smt_hf'] = package\n"
        "from smt_hf.data.packed_file import temporary_folder\n"
        "with temporary_folder(pathlib.Path(sys.argv[2])) as folder:\n"
        "    (folder / 'train').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    cache.mkdir()
    package = str(Path(smt_hf.__file__).parent)
    killed = subprocess.run([sys.executable, "-c", program, package, str(cache)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert (left / "train").read_bytes() == b"half"

    old = cache / "tmp-old"  # as a version without locks left it
    old.mkdir()
    (old / "validation").write_bytes(b"half")
    os.utime(old, (0, 0))
    (cache / "tmp-notes").mkdir()
    (cache / "tmp-notes" / "mine.txt").write_text("mine")
    with temporary_folder(cache) as alive:
        train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
        assert alive.is_dir()
    assert sorted(cache.iterdir()) == sorted([train.path, cache / "tmp-notes"])


def test_a_full_disk_names_the_file(corpus: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed_file, "_write_arrow", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        load_windows(corpus, byte_tokenizer(), sequence_length=16)
    assert str(cache) in str(error.value) and error.value.errno == errno.ENOSPC


def test_text_that_a_tokenizer_does_not_know_is_refused_in_one_sentence(tmp_path: Path) -> None:
    tokenizer = symbol_tokenizer(["a", "b"])
    tokenizer.eos_token = "a"
    with pytest.raises(ValueError, match=r"cannot encode the corpus .*UNK"):
        pack([("train", "a c")], tokenizer, tmp_path / "packed.arrow")


def test_a_file_of_another_kind_in_the_cache_is_written_anew(corpus: str) -> None:
    import pyarrow

    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    path, data = train.path, train.path.read_bytes()
    del train
    table = pyarrow.table({"x": [1]})
    with pyarrow.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    load_windows(corpus, byte_tokenizer(), sequence_length=16)
    assert path.read_bytes() == data


def test_a_truncated_file_is_written_anew(corpus: str, cache: Path) -> None:
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    path, data = train.path, train.path.read_bytes()
    del train
    for length in (0, 100, len(data) - 1):
        damaged = path.with_suffix(".part")
        damaged.write_bytes(data[:length])
        damaged.replace(path)
        again, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
        assert again.num_tokens == len(tokens_of("train"))
        assert path.read_bytes() == data


def test_cache_dir_wins_over_the_environment(corpus: str, tmp_path: Path, cache: Path) -> None:
    chosen = tmp_path / "chosen"
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16, cache_dir=chosen)
    assert train.path.parent == chosen
    assert not cache.exists()


def test_a_corpus_too_short_for_either_split_gives_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("x" * 100)
    for length, split, tokens in ((95, "train", 95), (5, "validation", 5)):
        with pytest.raises(
            ValueError, match=f"{split} split of .* has {tokens} tokens, but .* takes {length + 1}"
        ):
            load_windows(str(tmp_path / "one.txt"), byte_tokenizer(), sequence_length=length)
    train, validation = load_windows(str(tmp_path / "one.txt"), byte_tokenizer(), sequence_length=4)
    assert (len(train), len(validation)) == (91, 1)
    with pytest.raises(ValueError, match=r"has 5 tokens, but .* takes 6"):
        validation.blocks(5)
    with pytest.raises(ValueError, match="sequence_length must be at least 1, but it is 0"):
        train.at_length(0)


def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = small_tokenizer()
    backend = type(tokenizer)
    monkeypatch.setattr(backend, "__call__", lambda *_, **__: {"input_ids": [[0, 9]]})
    with pytest.raises(ValueError, match="ids from 0 to 9, outside its vocabulary of 5"):
        pack([("train", "zero")], tokenizer, tmp_path / "packed.arrow")
    assert list(tmp_path.iterdir()) == []


def test_text_that_utf8_cannot_hold_is_refused(tmp_path: Path) -> None:
    for tokenizer in (byte_tokenizer(), small_tokenizer()):
        with pytest.raises(ValueError, match=r"lone surrogate at character 2, .* 'ab\\ud800'"):
            pack([("train", "ab\ud800")], tokenizer, tmp_path / "packed.arrow")


def test_a_tokenizer_without_an_end_of_text_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no eos_token, which separates documents"):
        pack([], symbol_tokenizer(["a"]), tmp_path / "packed.arrow")


def test_the_tokens_are_mapped_and_not_copied(corpus: str) -> None:
    train, _ = load_windows(corpus, byte_tokenizer(), sequence_length=16)
    assert train._tokens.dtype == np.uint16
    assert not train._tokens.flags.owndata
    assert not train._tokens.flags.writeable
