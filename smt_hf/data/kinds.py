"""Kinds of data, and the figure that each is judged by: the one place that says so."""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["text", "image", "task"]

METRICS: dict[str, str] = {"text": "bits_per_byte", "image": "bits_per_dimension", "task": "accuracy"}
"""The name of the metric by kind, as records and tables carry it."""


def in_words(kind: str) -> str:
    """The metric of a kind for people: "bits per byte", "bits per dimension" or "accuracy"."""
    return METRICS[kind].replace("_", " ")


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """Cross-entropy in nats, of a token or of a whole text, per byte of it and in bits.

    The pixels of an image count as one byte each, which gives its bits per dimension.
    Source: Gao et al. 2020, "The Pile", section 3.1.
    """
    return nats / math.log(2) / num_bytes
