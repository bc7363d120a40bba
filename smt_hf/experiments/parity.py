"""Parity: one bit that every input may flip. Does the cell learn the rule, or the length?"""

from .recipe import Length, Recipe

PARITY = Recipe(
    about="the parity of all bits so far (T = 16, 32, 64)",
    dataset="parity",
    # A Transformer teacher finds parity one bit after another, hence the start at 4.
    lengths={
        16: Length(2, {"batch-size": 64, "curriculum-start-length": 4, "rollout-length": 15}),
        32: Length(4, {"batch-size": 32, "curriculum-start-length": 4, "rollout-length": 31}),
        64: Length(8, {"batch-size": 16, "curriculum-start-length": 4, "rollout-length": 32}),
    },
)
