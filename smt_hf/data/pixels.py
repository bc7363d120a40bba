"""Images as sequences of grey pixels in raster order, for a model that predicts one pixel at a time.

N images of H × W pixels, T = H·W, L grey levels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from torch import from_numpy

from .dataset import Batch, StackedRows, row_numbers
from .image_files import table_images
from .tables import VALIDATION, own_split, splits_of
from .tokenizer import symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

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
    validation_split: str | None = None,
) -> tuple[PixelSequences, PixelSequences]:
    """(training, validation) images of "digits", a local folder of images, or any `datasets` name.

    image_column: of a table; not used by "digits".
    grey_levels: L; a grey value v of maximum M becomes level v·L // (M+1). By default all there are: 17 of
        "digits", else 256.
    max_bytes: read no more images than have so many pixels.
    validation_split: as of `load_data`.

    As with documents, an image goes to validation if the hash of its content says so, and repeated ones
    are dropped, so none is on both sides; images that quantisation made equal count as repeated.
    Colours become grey, 16 bits become 8, and what is transparent is laid over white.
    Raises ValueError, in one sentence: an unknown name, column or split, images of different sizes, fewer
    than two different ones, a file that is damaged, a missing library.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1, but it is {validation_fraction}.")
    own = _own_validation_split(name, split, validation_split, streaming)
    share = max_bytes and max(1, round(max_bytes * validation_fraction))
    left = max_bytes if own is None or max_bytes is None else max(1, max_bytes - (share or 0))
    levels = _grey_levels(name, grey_levels)
    held_out: dict[bytes, np.ndarray] = {}
    if own is not None:
        logger.info(f"{name}: validation is its own split {own!r}")
        held_out = _quantised(name, _images(name, image_column, own, streaming, share), levels)
    distinct = _quantised(name, _images(name, image_column, split, streaming, left), levels)
    if own is None:
        if len(distinct) < 2:
            raise ValueError(
                f"{name!r} has {len(distinct)} different images, but training and validation need 2."
            )
        place = {key: int.from_bytes(key, "big") / 2**64 for key in distinct}
        lowest = min(place.values())  # never left without validation
        held_out = {
            key: image
            for key, image in distinct.items()
            if place[key] < validation_fraction or place[key] == lowest
        }
    training = [image for key, image in distinct.items() if key not in held_out]
    if not training or not held_out:
        raise ValueError(
            f"all {len(distinct)} images of {name!r} fall to validation by its fraction {validation_fraction}; "
            f"make it smaller."
            if own is None
            else f"training and validation of {name!r} need an image each that the other has not."
        )
    sides = training, list(held_out.values())
    _same_size(name, [sides[0][0], sides[1][0]])
    train, validation = (PixelSequences(np.stack(side), levels, name, sequence_length) for side in sides)
    return train, validation


def load_all_pixels(
    name: str,
    *,
    sequence_length: int | None = None,
    image_column: str | None = None,
    grey_levels: int | None = None,
    split: str | None = None,
    streaming: bool = False,
    max_bytes: int | None = None,
) -> PixelSequences:
    """All images of a split, to judge a model on: none is split off, and repetitions count.

    split: of a table; by default its "validation", "test" or "train", the first that it has.
    """
    if name == DIGITS:
        _own_validation_split(name, split or "train", None, streaming)
    elif split is None:
        splits = splits_of(name, streaming, images=True)
        split = next((one for one in (VALIDATION, "test") if one in splits), None)
    levels = _grey_levels(name, grey_levels)
    images = _images(name, image_column, split or "train", streaming, max_bytes)
    pixels = [_quantise(image, levels, _maximum(name)) for image in images]
    if not pixels:
        raise ValueError(f"{name!r} has no images; give data with at least one.")
    return PixelSequences(np.stack(pixels), levels, name, sequence_length)


def _own_validation_split(name: str, split: str, asked: str | None, streaming: bool) -> str | None:
    if name != DIGITS:
        return own_split(name, split, asked, splits_of(name, streaming, images=True) if asked != split else [])
    if split != "train" or asked not in (None, split):
        raise ValueError(f"{name!r} has no splits; leave split and validation_split out.")
    return None


def _maximum(name: str) -> int:
    return _DIGITS_MAXIMUM if name == DIGITS else _BYTE_MAXIMUM


def _grey_levels(name: str, asked: int | None) -> int:
    most = _maximum(name) + 1
    if asked is not None and not 2 <= asked <= most:
        raise ValueError(f"grey_levels of {name!r} must be 2 to {most}, but it is {asked}.")
    return most if asked is None else asked


def _quantise(image: np.ndarray, levels: int, maximum: int) -> np.ndarray:
    return (image.astype(np.uint32) * levels // (maximum + 1)).astype(np.uint8)


def _quantised(name: str, images: Iterable[np.ndarray], levels: int) -> dict[bytes, np.ndarray]:
    """The different images by the hash of their levels, in the order in which they came first."""
    distinct: dict[bytes, np.ndarray] = {}
    for image in images:
        quantised = _quantise(image, levels, _maximum(name))
        distinct.setdefault(hashlib.blake2b(quantised.tobytes(), digest_size=8).digest(), quantised)
    return distinct


def _images(
    name: str, column: str | None, split: str, streaming: bool, max_bytes: int | None
) -> Iterator[np.ndarray]:
    """Grey values 0 … M, (H, W) uint8, of images of one size, with no more than `max_bytes` pixels together."""
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1 or None, but it is {max_bytes}.")
    images = _digits() if name == DIGITS else table_images(name, column or "image", split, streaming)
    first = next(images, None)
    if first is None:
        return
    yield first
    limit = None if max_bytes is None else max(1, max_bytes // first.size) - 1
    for number, image in enumerate(islice(images, limit), start=1):
        _same_size(name, [first, image], number)
        yield image


def _same_size(name: str, images: list[np.ndarray], number: int | str = "of validation") -> None:
    first, image = images
    if image.shape != first.shape:
        sizes = [f"{height} × {width}" for height, width in (image.shape, first.shape)]
        raise ValueError(
            f"image {number} of {name!r} has {sizes[0]} pixels but the first has {sizes[1]}; "
            f"resize them to one size."
        )


def _digits() -> Iterator[np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "the data 'digits' come with scikit-learn; install it with pip install 'smt-hf[experiments]'."
        ) from error
    yield from load_digits().images.astype(np.uint8)
