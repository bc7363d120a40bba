"""Digits: handwritten digits, pixel by pixel. A memory as an image model."""

from .recipe import Length, Recipe

DIGITS = Recipe(
    about="8×8 digits in raster order, bits per dimension (needs scikit-learn)",
    dataset="digits",
    # All 64 pixels; the preset `small` with its rollout of 32 fits into them.
    lengths={64: Length(8, {"rollout-length": 32})},
    arguments={"preset": "small", "eval-sequences": 128},
    smt={"learning-rate": 2e-3},
    tested=(),  # an image has one length
)
