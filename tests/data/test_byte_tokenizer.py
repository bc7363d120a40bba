"""Tokenizers: bytes are their own ids, and both tokenizers survive being saved."""

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Config

from smt_hf.data import byte_tokenizer, load_tokenizer, symbol_tokenizer
from smt_hf.data.tokenizer import is_byte_tokenizer, tokenizer_fingerprint


def random_text(rng: random.Random, length: int = 40) -> str:
    """Random characters of all planes, surrogates excepted: they are no characters."""
    points = (rng.randrange(rng.choice([0x80, 0x800, 0x10000, 0x110000])) for _ in range(length))
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


def test_ids_are_the_utf8_bytes_and_decode_to_the_same_text() -> None:
    tokenizer, rng = byte_tokenizer(), random.Random(0)
    texts = [random_text(rng) for _ in range(200)] + ["", " a  b ", " .\r\n\t don't ,"]
    for text in texts:
        ids = list(tokenizer(text)["input_ids"])
        assert ids == list(text.encode())
        assert tokenizer.decode(ids) == text


def test_each_of_the_256_bytes_is_its_own_id() -> None:
    vocabulary = byte_tokenizer().get_vocab()
    assert sorted(vocabulary.values()) == list(range(258))
    text = "".join(map(chr, range(0x80))) + "é中🙂"
    assert byte_tokenizer()(text)["input_ids"][:128] == list(range(128))


def test_special_tokens_and_left_padding() -> None:
    tokenizer = byte_tokenizer()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        256,
        256,
        257,
    )
    assert len(tokenizer) == 258
    batch = tokenizer(["ab", "abcd"], padding=True)
    assert batch["input_ids"] == [[257, 257, 97, 98], [97, 98, 99, 100]]
    assert batch["attention_mask"] == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert tokenizer.decode([97, 256, 98], skip_special_tokens=True) == "ab"
    assert tokenizer.model_max_length > 10**12


def test_the_byte_tokenizer_survives_saving(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    text = "naïve <|endoftext|> 🙂"
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
        assert loaded(["x", text], padding=True) == tokenizer(["x", text], padding=True)
        assert (loaded.padding_side, loaded.eos_token_id) == ("left", 256)
        assert not loaded.clean_up_tokenization_spaces
        assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
        assert is_byte_tokenizer(loaded)


def test_fingerprint_ignores_calls_but_not_the_vocabulary() -> None:
    tokenizer = byte_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.add_tokens(["<user>"])
    assert tokenizer_fingerprint(tokenizer) != before


def test_only_plain_bytes_count_as_a_byte_tokenizer() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    assert is_byte_tokenizer(tokenizer)
    tokenizer.add_tokens(["the"])  # matched inside ordinary text
    assert not is_byte_tokenizer(tokenizer)
    assert not is_byte_tokenizer(symbol_tokenizer(["a"]))


def test_symbols_round_trip_and_padding_is_last(tmp_path: Path) -> None:
    symbol_tokenizer(["0", "1", "<|query|>"]).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer("1  0\n<|query|>")["input_ids"] == [1, 0, 2]
    assert tokenizer.decode([1, 0, 2]) == "1 0 <|query|>"
    assert (tokenizer.pad_token_id, len(tokenizer)) == (3, 4)
    with pytest.raises(Exception, match="UNK"):
        tokenizer("7")


@pytest.mark.parametrize("symbols", [["a", "a"], ["a b"], [""], ["<|pad|>"]])
def test_impossible_symbols_are_refused(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="symbols must be distinct"):
        symbol_tokenizer(symbols)


def test_an_unknown_tokenizer_is_named_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing' .*'byte', a folder .* Hugging Face"):
        load_tokenizer("nobody/nothing")
    with pytest.raises(ValueError, match="this folder holds none"):
        load_tokenizer(str(tmp_path))
    GPT2Config().save_pretrained(tmp_path)  # of which `transformers` makes a tokenizer that reads nothing
    with pytest.raises(ValueError, match="this folder holds none"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": "1.0"}', "\0\0"])
def test_a_damaged_tokenizer_is_named_with_the_cause(tmp_path: Path, damage: str) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(ValueError, match=r"damaged or incomplete: .*'byte'") as error:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
