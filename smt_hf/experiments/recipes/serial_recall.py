"""Recency and primacy: the last symbols of a list, or the first. What does the memory let go of?"""

from dataclasses import replace

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

RECENCY = Recipe(
    about="say the last 4 symbols of a list",
    dataset="recency",
    # Four symbols and their cue need 8 tokens at least.
    lengths={32: Length(2, {"curriculum_start_length": 8, "rollout_length": 31})},
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
)
# Asking the end of the list (prompt-fraction 0.5, cell-readout-weight 1) leaves fewer steps and gives 0.75
# instead of 0.85.
PRIMACY = replace(RECENCY, about="say the first 4 symbols of a list", dataset="primacy")
