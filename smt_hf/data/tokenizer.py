"""Tokenizers that need no download: raw bytes for text, whole symbols for synthetic tasks.

Heavy imports (`transformers`, `tokenizers`) happen inside the functions, so that the command line
starts quickly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smt_hf.example import FOLDER as EXAMPLE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"

NAMED = ("byte", "example")  # tokenizers that are here by name, without a file or the Hub
NO_LIMIT = int(1e30)
"""What `transformers` writes for "no maximum length": a memory reads any number of tokens."""


def _byte_characters() -> list[str]:
    """The printable character that the byte-level pre-tokenizer shows for each byte 0 … 255.

    Printable Latin-1 stands for itself; the 68 other bytes take the code points from 256 upwards.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (chr(code) for code in range(256, 512))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def text_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerBase:
    """An ordinary fast tokenizer of a byte-level model that has `END_OF_TEXT` and `PAD`, or gets them.

    Padding is on the left, so that generation goes on from the last real token of every row.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=NO_LIMIT,
        model_input_names=["input_ids", "attention_mask"],
    )


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer whose ids 0 … 255 are the UTF-8 bytes of the text; nothing is added to prompts.

    `<|endoftext|>` = 256 is beginning and end of text, `<|pad|>` = 257 is padding. 258 ids in all. It is an
    ordinary fast tokenizer: `save_pretrained`, `AutoTokenizer.from_pretrained` and `push_to_hub` work.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return text_tokenizer(backend)


def symbol_tokenizer(symbols: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer of whole symbols: ids 0 … n-1 are `symbols` in order, then `<|pad|>` = n.

    Text is split at white space and decoding joins with single spaces. There is no unknown token:
    a symbol outside the list raises from `tokenizers` instead of silently becoming another one.
    Raises ValueError for a repeated or empty symbol or one with white space in it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = list(symbols)
    if len({*symbols, PAD}) != len(symbols) + 1 or any(s.split() != [s] for s in symbols):
        raise ValueError(
            f"symbols must be distinct, without white space and none of them {PAD!r}, but they are {symbols!r}."
        )
    backend = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(symbols)}))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=NO_LIMIT,
        model_input_names=["input_ids", "attention_mask"],
    )


def place_of(name: str) -> str:
    """The folder of the model of the package by its name, "example"; any other name as it is."""
    return str(EXAMPLE) if name == "example" else name


def load_tokenizer(name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """`"byte"`, `"example"`, a folder written by `save_pretrained`, or a tokenizer's name on the Hub.

    "example" is that of the model in the package: 2,048 pieces of English and Python, three bytes each.

    trust_remote_code: run the code that a tokenizer brings, if it needs any; nobody is asked.

    Raises ValueError where the name leads to no tokenizer, and for one that needs code which is not trusted.
    """
    if name == "byte":
        return byte_tokenizer()
    from transformers import AutoTokenizer

    name = place_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # made up where there is a config.json alone
            raise ValueError("it has no vocabulary")
        return tokenizer
    except Exception as error:  # `tokenizers` raises nothing more special for files that are damaged
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"the tokenizer of {name!r} is code of its own, which is not run; read that code, then load it "
                f"with trust_remote_code (commands that take a model: --trust-remote-code)."
            ) from None
        folder = Path(name)
        place = "the Hub did not give one"
        if folder.is_dir():
            place = "this folder holds none"
            if any(folder.glob("*token*")):
                place = f"its files are damaged or incomplete: {' '.join(str(error).split())[:200]}"
        raise ValueError(
            f"no tokenizer could be loaded from {name!r} ({place}); give 'byte', a folder written "
            f"by save_pretrained, or a Hugging Face name such as 'openai-community/gpt2'."
        ) from error


def _definition(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that decides how the tokenizer maps text to ids, as plain data."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer written in Python: the vocabulary is all it shows
        return {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    definition: dict[str, Any] = json.loads(backend.to_str())
    for state_of_the_last_call in ("padding", "truncation"):
        definition.pop(state_of_the_last_call, None)
    return definition


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Sixteen hex digits that change whenever the ids of some text could change."""
    described = {"definition": _definition(tokenizer), "eos": tokenizer.eos_token_id}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def is_byte_tokenizer(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether ids are the UTF-8 bytes, so that `str.encode` can stand in for the tokenizer.

    Special tokens may have been added to it; other added tokens are matched in ordinary text.
    """
    given, bytewise = _definition(tokenizer), _definition(byte_tokenizer())
    parts = ("model", "normalizer", "pre_tokenizer")
    same = all(part in given and given[part] == bytewise[part] for part in parts)
    return same and all(token["special"] for token in given["added_tokens"])
