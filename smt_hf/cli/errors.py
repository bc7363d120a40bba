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
    if is_too_large(error):
        return (
            f"there is not enough memory for this ({text}); make the model, the batch or the lengths smaller."
        )
    if type(error) is Exception or isinstance(error, json.JSONDecodeError | UnicodeError | EOFError):
        return about(args, text)  # of `tokenizers`, which raises nothing more special, and of decoders
    if type(error).__module__.split(".")[0] in LIBRARIES or type(error).__name__ == "OverflowError":
        return about(args, text)
    if isinstance(error, OSError):
        return about(args, text) if error.errno is not None and error.filename is None else text
    if isinstance(error, ValueError) or type(error).__name__ == "NonFiniteLossError":
        # In a file of settings the names of fields are right.
        return text if getattr(args, "config", None) else in_flags(text, flags)
    return None


def is_too_large(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | TypeError | OverflowError) and bool(TOO_LARGE.search(str(error)))


def about(args: argparse.Namespace, text: str) -> str:
    """The text, after the files and folders that the command line names and that it does not name itself."""
    named = [
        value for values in vars(args).values() for value in (values if isinstance(values, list) else [values])
    ]
    paths = [str(value) for value in named if isinstance(value, str | Path) and is_path(value)]
    told = [path for path in dict.fromkeys(paths) if path not in text]
    return f"{', '.join(told)} cannot be read or written: {text}" if told else text


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

    return re.sub(r"(?<![\w./'\"-])[a-z]\w*(?![\w/'\"-]|\.\w)", replaced, text)
