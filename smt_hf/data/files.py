"""Files of a corpus: which there are below a name, of which kind, and what is in a text file.

A file's suffix determines its kind (text, table or image), whatever lies beside it.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".rst", ".tex", ".py"})
TABLE_BUILDERS: dict[str, tuple[str, dict[str, str]]] = {
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
}
"""Files that hold a table, and the `datasets` builder that reads each, with its options."""
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm"}
)
COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst"})
ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar"})

_DESCRIPTIONS = frozenset({"readme", "license"})  # beside tables these files describe them
_ABOUT_TABLES = frozenset(
    {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
)
_IMAGE_METADATA = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
# The first bytes of files that are often taken for text, and what they are.
_NO_TEXT = {
    b"\x1f\x8b": "is compressed by gzip; end its name in .gz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; end its name in .zst",
    b"BZh": "is compressed by bzip2; end its name in .bz2",
    b"\xfd7zXZ": "is compressed by xz; end its name in .xz",
    b"PK\x03\x04": "is a zip archive or an office document; save the text in it as a .txt file",
    b"%PDF": "is a PDF; save the text in it as a .txt file",
    b"PAR1": "is a Parquet table; end its name in .parquet",
    b"\xff\xfe": "is UTF-16; convert it to UTF-8",
    b"\xfe\xff": "is UTF-16; convert it to UTF-8",
}


@dataclass(frozen=True)
class Found:
    """The files that a name stands for: all of one `kind`, "text", "table" or "image", sorted by path.

    left_out: in words, what lies there and is not read.
    """

    kind: str
    files: list[Path]
    left_out: list[str]

    @property
    def builder(self) -> tuple[str, dict[str, str]]:
        """The builder of `datasets` that reads these tables or images, and its options."""
        if self.kind == "image":
            return "imagefolder", {}
        return TABLE_BUILDERS[suffix_of(self.files[0])]

    def said(self, name: str) -> str:
        """One line about what is read and what is not."""
        line = f"{name}: reading {counted(len(self.files), _NAMES[self.kind])}"
        return f"{line}; leaving out {', '.join(self.left_out)}" if self.left_out else line


_NAMES = {"text": "text file", "table": "table", "image": "image"}


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def suffix_of(path: Path) -> str:
    """The suffix that says what is in it: of "a.jsonl.gz" ".jsonl", of "a.gz" nothing."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def is_pattern(name: str) -> bool:
    """Whether a name stands for files by wildcards; a path that exists is itself."""
    return glob.has_magic(name) and not Path(name).expanduser().exists()


def find(name: str, images: bool = False) -> Found | None:
    """The files of a path, or of a pattern such as "texts/**/*.md"; None if `name` is neither.

    images: whether images are wanted, instead of text. Hidden files and folders never count.

    A folder that mixes text and tables is refused, and so are tables of different formats: `datasets` would
    read all files as the most frequent kind, so one more file could change what the others mean. README and
    LICENSE beside tables, and metadata.csv and the like beside images, are descriptions and do not count. A
    dataset card that names its data files decides by itself.

    Raises ValueError for such mixtures, for archives, and where no file matches.
    """
    if not name.strip():
        raise ValueError(f"the name of the data is {name!r}; give a path or the name of a data set.")
    path = Path(name).expanduser()
    left_out: list[str] = []
    if path.is_file():
        _refuse_archive(path)
        return Found(_kind(path, images) or "text", [path], [])
    if path.is_dir():
        files = _below(path, left_out)
        example = f"{name.rstrip('/')}/**/*"
    elif is_pattern(name):
        files = sorted(Path(file) for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
        example = name
        if not files:
            raise ValueError(f"no file matches {name!r}; give a pattern such as 'texts/**/*.txt'.")
    else:
        return None
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(_kind(file, images) or "other", []).append(file)
    others = kinds.pop("other", [])
    if images and "image" in kinds:
        others += _take(kinds, "table", _IMAGE_METADATA)
    if "table" in kinds:
        others += _take(kinds, "table", _ABOUT_TABLES)
    if "table" in kinds and "text" in kinds:
        described = {file.name for file in kinds["text"] if file.stem.lower() in _DESCRIPTIONS}
        others += _take(kinds, "text", described)
    if others:
        left_out.insert(0, counted(len(others), "other file"))
    _refuse_mixture(name, kinds, example, _card_decides(path))
    if not kinds:
        return Found("image" if images else "text", [], left_out)
    kind = "table" if _card_decides(path) and "table" in kinds else next(iter(kinds))
    return Found(kind, kinds[kind], left_out)


def _kind(path: Path, images: bool) -> str | None:
    suffix = suffix_of(path)
    if suffix in TABLE_BUILDERS:
        return "table"
    if images:
        return "image" if suffix in IMAGE_SUFFIXES else None
    return "text" if suffix in TEXT_SUFFIXES else None


def _take(kinds: dict[str, list[Path]], kind: str, names: Iterable[str]) -> list[Path]:
    """Remove the files with these names from a kind, and the kind if nothing is left of it."""
    files = kinds.pop(kind, [])
    taken = [file for file in files if file.name in names]
    kept = [file for file in files if file.name not in names]
    if kept:
        kinds[kind] = kept
    return taken


def _refuse_archive(path: Path) -> None:
    if path.suffix.lower() in ARCHIVES or suffix_of(path) in ARCHIVES:
        raise ValueError(f"the file {str(path)!r} is an archive; unpack it and give the folder.")


def _refuse_mixture(name: str, kinds: dict[str, list[Path]], example: str, card_decides: bool) -> None:
    groups: dict[Any, list[Path]] = {}
    for kind, files in kinds.items():
        for file in files:
            # Tables of one builder belong together, .json and .jsonl for instance.
            key = (kind, str(TABLE_BUILDERS[suffix_of(file)])) if kind == "table" else (kind, "")
            groups.setdefault(key, []).append(file)
    if len(groups) < 2 or card_decides:
        return
    parts = [
        f"{counted(len(files), _NAMES[kind])} (such as {files[0].name!r})"
        for (kind, _), files in groups.items()
    ]
    largest = max(groups.values(), key=len)
    pattern = (
        example if is_pattern(example) and example == name else example + "".join(largest[0].suffixes[-2:])
    )
    raise ValueError(
        f"{name!r} holds {' and '.join(parts)}, which are read in different ways; give the files of one kind "
        f"by a pattern, such as {pattern!r}."
    )


def _card_decides(path: Path) -> bool:
    """Whether a dataset card in the folder says which files are data, as on the Hub."""
    card = path / "README.md"
    try:
        head = card.read_text("utf-8", "replace") if path.is_dir() and card.is_file() else ""
    except OSError:
        return False
    return head.startswith("---") and "data_files" in head.split("\n---", 1)[0]


def card_decides(name: str) -> bool:
    return _card_decides(Path(name).expanduser())


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files with these suffixes, sorted by path, hidden files and folders left out."""
    return [path for path in _below(folder, []) if path.suffix.lower() in suffixes]


def _below(folder: Path, left_out: list[str]) -> list[Path]:
    """All files but hidden ones, sorted. What cannot be opened or followed is added to `left_out`."""
    found = []

    def cannot(error: OSError) -> None:
        left_out.append(f"the folder {str(error.filename)!r}, which cannot be opened ({error.strerror})")

    for root, folders, files in os.walk(folder, onerror=cannot):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(root, name).is_symlink()]
        left_out += [f"the linked folder {str(Path(root, name))!r}" for name in links]
        found += [Path(root, name) for name in files if not name.startswith(".")]
    # A pipe or a broken link has a name like any file, and cannot be read.
    return sorted(path for path in found if path.is_file())


def read_text(path: Path) -> str:
    """A text file, decompressed if its name says so, byte for byte.

    Raises ValueError that names the file for damaged or other content, OSError where it cannot be opened.
    """
    try:
        data = _OPENERS.get(path.suffix.lower(), Path.read_bytes)(path)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise ValueError(
            f"the file {str(path)!r} cannot be decompressed ({error}); it is damaged or not what its name says."
        ) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if what := next((what for magic, what in _NO_TEXT.items() if data.startswith(magic)), None):
            raise ValueError(f"the file {str(path)!r} {what}.") from error
        if b"\0" in data[: 1 << 16]:
            raise ValueError(f"the file {str(path)!r} holds no text but binary data; leave it out.") from error
        raise ValueError(
            f"the file {str(path)!r} is not UTF-8 at byte {error.start}; convert it to UTF-8, or "
            f"leave it out of the corpus."
        ) from error


def _zst(path: Path) -> bytes:
    import pyarrow as pa  # brings zstd, which Python has from 3.14 on

    with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, "zstd") as stream:
        return stream.read()


_OPENERS: dict[str, Callable[[Path], bytes]] = {
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".bz2": lambda path: bz2.decompress(path.read_bytes()),
    ".xz": lambda path: lzma.decompress(path.read_bytes()),
    ".zst": _zst,
}
