"""Images as sequences of grey pixels in raster order, for a model that predicts one pixel at a time.

N images of H × W pixels, T = H·W, L grey levels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import from_numpy

from .corpora import load_table
from .dataset import Batch, StackedRows, row_numbers
from .tokenizer import symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIGITS = "digits"
START = "<|image|>"
_DIGITS_MAXIMUM = 16  # of scikit-learn's digits, which count the dark dots in a block of 4 × 4
_BYTE_MAXIMUM = 255


class PixelSequences(StackedRows):
    """Images of one split. Row i: `input_ids` = (START, p_0 … p_{T-2}), `shift_labels` = (p_0 … p_{T-1}).

    Every pixel is predicted, the first one too, so nats per target / ln 2 are bits per dimension: of the
    image with its L grey levels, which is the usual figure where L is 256. Ids 0 … L-1 are the grey levels
    from black to white, L is START, and L+1 = `vocab_size` - 1 is the tokenizer's `<|pad|>`.

    pixels: grey levels 0 … L-1, (N, H, W). sequence_length: only the first so many pixels, at most T.
    Raises ValueError for a length outside 1 … T.
    """

    kind = "image"
    bytes_per_token = 1.0  # a token is one dimension

    def __init__(
        self, pixels: np.ndarray, grey_levels: int, name: str, sequence_length: int | None = None
    ) -> None:
        total = pixels[0].size
        length = total if sequence_length is None else sequence_length
        if not 1 <= length <= total:
            raise ValueError(
                f"sequence_length of {name!r} must be 1 to {total}, the pixels of an image, but it is {length}."
            )
        self.pixels = pixels
        self.grey_levels = grey_levels
        self.name = name
        self.sequence_length = length
        self.image_shape: tuple[int, int] = pixels.shape[1:]
        self.vocab_size = grey_levels + 2

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits naming all pixels and the length."""
        described = f"{self.pixels.shape} {self.grey_levels} {self.sequence_length} "
        return hashlib.sha256(described.encode() + self.pixels.tobytes()).hexdigest()[:16]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Ids as symbols: "0" … "L-1", "<|image|>", "<|pad|>"."""
        return symbol_tokenizer([*map(str, range(self.grey_levels)), START])

    def at_length(self, sequence_length: int) -> PixelSequences:
        """The first pixels of the same images."""
        return PixelSequences(self.pixels, self.grey_levels, self.name, sequence_length)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """`input_ids` and `shift_labels`, both int64 (B, T), of the images `indices` (B,)."""
        chosen = self.pixels[row_numbers(indices, len(self))]
        labels = chosen.reshape(len(chosen), -1)[:, : self.sequence_length].astype(np.int64)
        start = np.full((len(labels), 1), self.grey_levels)
        input_ids = np.concatenate([start, labels[:, :-1]], axis=1)
        return {"input_ids": from_numpy(input_ids), "shift_labels": from_numpy(labels)}


def load_pixels(
    name: str,
    *,
    sequence_length: int | None = None,
    image_column: str | None = None,
    grey_levels: int | None = None,
    split: str = "train",
    streaming: bool = False,
    max_bytes: int | None = None,
    validation_fraction: float = 0.05,
) -> tuple[PixelSequences, PixelSequences]:
    """(training, validation) images of "digits", a local folder of images, or any `datasets` name.

    image_column: of a table; not used by "digits".
    grey_levels: L; a grey value v of maximum M becomes level v·L // (M+1). By default all there are: 17 of
        "digits", else 256.
    max_bytes: read no more images than have so many pixels.

    As with documents, an image goes to validation if the hash of its content says so, and repeated ones
    are dropped, so none is on both sides; images that quantisation made equal count as repeated.
    Raises ValueError, in one sentence: an unknown name or column, images of different sizes, fewer than
    two different ones, a missing library.
    """
    if name == DIGITS:
        images, maximum = _digits(), _DIGITS_MAXIMUM
    else:
        images, maximum = _table_images(name, image_column or "image", split, streaming), _BYTE_MAXIMUM
    if grey_levels is None:
        grey_levels = maximum + 1
    if not 2 <= grey_levels <= maximum + 1:
        raise ValueError(f"grey_levels of {name!r} must be 2 to {maximum + 1}, but it is {grey_levels}.")
    distinct: dict[bytes, np.ndarray] = {}
    for image in _of_one_size(name, images, max_bytes):
        levels = (image.astype(np.uint32) * grey_levels // (maximum + 1)).astype(np.uint8)
        distinct.setdefault(hashlib.blake2b(levels.tobytes(), digest_size=8).digest(), levels)
    if len(distinct) < 2:
        raise ValueError(f"{name!r} has {len(distinct)} different images, but training and validation need 2.")
    place = {key: int.from_bytes(key, "big") / 2**64 for key in distinct}
    lowest = min(place.values())  # never left without validation
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for key, levels in distinct.items():
        sides[place[key] < validation_fraction or place[key] == lowest].append(levels)
    if not sides[0]:
        raise ValueError(
            f"all {len(distinct)} images of {name!r} fall to validation by its fraction {validation_fraction}; "
            f"make it smaller."
        )
    train, validation = (PixelSequences(np.stack(side), grey_levels, name, sequence_length) for side in sides)
    return train, validation


def _of_one_size(name: str, images: Iterable[np.ndarray], max_bytes: int | None) -> Iterator[np.ndarray]:
    images = iter(images)
    first = next(images, None)
    if first is None:
        return
    yield first
    limit = None if max_bytes is None else max(1, max_bytes // first.size) - 1
    for number, image in enumerate(islice(images, limit), start=1):
        if image.shape != first.shape:
            sizes = [f"{height} × {width}" for height, width in (image.shape, first.shape)]
            raise ValueError(
                f"image {number} of {name!r} has {sizes[0]} pixels but the first has {sizes[1]}; "
                f"resize them to one size."
            )
        yield image


def _digits() -> Iterator[np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "the data 'digits' come with scikit-learn; install it with pip install 'smt-hf[experiments]'."
        ) from error
    yield from load_digits().images.astype(np.uint8)


def _table_images(name: str, column: str, split: str, streaming: bool) -> Iterator[np.ndarray]:
    table = load_table(name, Path(name).expanduser(), column, split, streaming, "image_column")
    try:
        for row in table:
            yield _grey(name, column, row[column])
    except ImportError as error:
        raise ValueError("images need Pillow; install it with pip install 'smt-hf[experiments]'.") from error


def _grey(name: str, column: str, image: Any) -> np.ndarray:
    if not hasattr(image, "convert"):
        raise ValueError(
            f"the column {column!r} of {name!r} holds {type(image).__name__}, not images; choose another "
            f"image_column."
        )
    return np.asarray(image.convert("L"))
