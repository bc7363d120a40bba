"""Digits: handwritten digits, pixel by pixel. A memory as an image model."""

from ..recipe import TASK, Length, Recipe

DIGITS = Recipe(
    about="8×8 digits in raster order, bits per dimension (needs scikit-learn)",
    dataset="digits",
    # All 64 pixels, and a rollout over half of them. No curriculum: an upper edge alone is no image.
    lengths={64: Length(8, {"batch_size": 32, "rollout_length": 32})},
    arguments=TASK,
    smt={"learning_rate": 2e-3},
    tested=(),  # an image has one length
)
