"""The figure that each kind of data is judged by: bits per byte, bits per dimension, or accuracy."""

import math

METRICS = {"text": "bits_per_byte", "image": "bits_per_dimension", "task": "accuracy"}
"""What is reported of each kind of data."""


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Cross-entropy in nats per token → bits per byte of text.

    Of a pixel sequence, whose tokens are one "byte" each, these are bits per dimension.
    """
    return nats_per_token / math.log(2) / bytes_per_token
