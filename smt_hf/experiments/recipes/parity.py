"""Parity: one bit that every input may flip. Does the cell learn the rule, or the length?"""

from ..recipe import Length, Recipe

PARITY = Recipe(
    about="the parity of all bits so far (T = 16, 32, 64)",
    dataset="parity",
    # A Transformer teacher finds parity one bit after another, hence the start at 4.
    lengths={
        16: Length(2, {"batch_size": 64, "curriculum_start_length": 4, "rollout_length": 15}),
        32: Length(4, {"batch_size": 32, "curriculum_start_length": 4, "rollout_length": 31}),
        64: Length(8, {"batch_size": 16, "curriculum_start_length": 4, "rollout_length": 32}),
    },
)
