"""What a command says when it fails: one sentence for what its user can change, a traceback for our faults."""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path

# Exceptions of these libraries speak of the files and the data that they were given, but do not name them.
LIBRARIES = {
    *("safetensors", "tokenizers", "huggingface_hub", "datasets", "pyarrow", "PIL", "yaml", "jinja2", "fsspec"),
    *("zlib", "gzip", "lzma", "bz2", "zipfile", "zstandard", "httpx", "httpx2", "requests", "pandas"),
}
# What torch says, as a RuntimeError or TypeError, of sizes that no machine has.
TOO_LARGE = re.compile(
    r"allocate memory|out of memory|size calculation overflowed|Overflow when unpacking|multiplication overflow"
)


def explained(error: Exception, args: argparse.Namespace, flags: Mapping[str, str]) -> str | None:
    """One sentence for an error that the input or the machine caused, None for a fault of this package.

    args: of the command line; files that it names stand in the sentence of an error that names none.
    flags: flags of the command by field, see `in_flags`.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    library = type(error).__module__.split(".")[0]
    if is_too_large(error):
        where = ", ".join(paths_of(args)) or "this"
        said = (
            f"the memory is too small for {where} ({text}); make the model, the batch or the lengths smaller."
        )
    elif type(error) is Exception or isinstance(error, json.JSONDecodeError | UnicodeError | EOFError):
        said = about(args, text)  # of `tokenizers`, which raises nothing more special, and of decoders
    elif library in LIBRARIES or isinstance(error, OverflowError | RecursionError):
        said = about(args, text)
    elif isinstance(error, OSError):
        said = about(args, text) if error.errno is not None and error.filename is None else text
    elif isinstance(error, ValueError) or type(error).__name__ == "NonFiniteLossError":
        # In a file of settings the names of fields are right.
        said = text if getattr(args, "config", None) else in_flags(text, flags)
    else:
        return None
    return plain(said)


def plain(text: str) -> str:
    """The text without tokens of the Hub, without names of exceptions, and safe for a terminal."""
    from smt_hf.hub.tokens import masked

    text = re.sub(r"\b[A-Z]\w*Error: ", "", masked(text))
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def is_too_large(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | TypeError | OverflowError) and bool(TOO_LARGE.search(str(error)))


def about(args: argparse.Namespace, text: str) -> str:
    """The text, after the files and folders that the command line names and that it does not name itself."""
    told = [path for path in paths_of(args) if path not in text]
    return f"{', '.join(told)} cannot be read or written: {text}" if told else text


def paths_of(args: argparse.Namespace) -> list[str]:
    """The files and folders among the values of a command line."""
    values = [one for value in vars(args).values() for one in (value if isinstance(value, list) else [value])]
    return list(
        dict.fromkeys(str(value) for value in values if isinstance(value, str | Path) and is_path(value))
    )


def is_path(value: str | Path) -> bool:
    try:
        return str(value) not in ("", ".") and Path(value).exists()
    except (OSError, ValueError):  # too long for a name, or a zero byte
        return False


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """The text with flags instead of the names of fields: "--max-steps is 0" for "max_steps is 0".

    flags: by name of the field. A name of one word is a plain word too: it is one of a field where the text
    starts with it.
    """

    def replaced(found: re.Match[str]) -> str:
        name = found[0]
        starts = found.start() == 0 and text[found.end() :].startswith(" is ")
        return flags[name] if name in flags and ("_" in name or starts) else name

    return re.sub(r"(?<![\w./'\"`-])[a-z]\w*(?![\w/'\"-]|\.\w)", replaced, text)
