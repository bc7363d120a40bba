"""Image files to grey values: each mode by its own rule, or refused by its name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .files import find
from .tables import load_table, reason, table_rows

logger = logging.getLogger(__name__)


def table_images(name: str, column: str, split: str, streaming: bool) -> Iterator[np.ndarray]:
    """The images of a column as grey values, (H, W) uint8 from black to white.

    One log line says what images lose on the way. Raises ValueError, with the image's name, for an image that
    is damaged, too large, or of a mode without a known white.
    """
    table = load_table(name, column, split, streaming, "image_column", images=True)
    found = find(name, images=True)
    if found is not None and found.left_out:
        logger.warning(found.said(name))
    said: set[str] = set()

    def say(where: str, what: str) -> None:
        if what not in said:
            logger.warning(f"{where} {what}, as do others like it below {name}")
        said.add(what)

    for number, value in enumerate(table_rows(name, table, column)):
        if not isinstance(value, dict) or not {"bytes", "path"} <= value.keys():
            raise ValueError(
                f"the column {column!r} of {name!r} holds {type(value).__name__}, not images; choose another "
                f"image_column."
            )
        where = repr(value["path"]) if value["path"] else f"image {number} of {name!r}"
        yield _read(where, value, say)


def _read(where: str, value: dict[str, Any], say: Callable[[str, str], None]) -> np.ndarray:
    import datasets

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ValueError("images need Pillow; install it with pip install 'smt-hf[experiments]'.") from error
    if value["bytes"] is None and Path(value["path"]).is_file():
        # The library leaves a file open that it cannot decode.
        value = {**value, "bytes": Path(value["path"]).read_bytes()}
    try:
        with warnings.catch_warnings():
            # Twice as large is an error to Pillow anyway; a row of so many pixels is none to train on.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _grey(where, datasets.Image().decode_example(value), say)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{where} has more than the {Image.MAX_IMAGE_PIXELS:,} pixels that an image may have."
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{where} is empty or no image that Pillow reads; mend it or leave it out.") from error
    except Refused:
        raise
    except Exception as error:  # each format raises its own kinds
        raise ValueError(
            f"{where} cannot be read as an image ({reason(error)}); mend it or leave it out."
        ) from error


class Refused(ValueError):
    """An image that could be read, but not turned into grey values."""


def _grey(where: str, image: Any, say: Callable[[str, str], None]) -> np.ndarray:
    if getattr(image, "n_frames", 1) > 1:
        say(where, "gives the first of its frames alone")
    if image.mode.startswith("I;16"):
        say(where, "goes from 16 bits to 8 bits")
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise Refused(
            f"{where} has pixels of 32 bits (mode {image.mode!r}), whose white nobody knows; convert it to "
            f"8 or 16 bits."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            say(where, "is transparent and comes to lie over white")
        from PIL import Image

        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L"))
