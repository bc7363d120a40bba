"""Recency and primacy: the last symbols of a list, or the first. What does the memory let go of?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

# Four symbols and their cue need 8 tokens at least.
LENGTHS = {32: Length(4, {"curriculum-start-length": 8, "rollout-length": 31})}

RECENCY = Recipe(
    about="say the last 4 symbols of a list",
    dataset="recency",
    lengths=LENGTHS,
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
)
PRIMACY = Recipe(
    about="say the first 4 symbols of a list",
    dataset="primacy",
    lengths=LENGTHS,
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
)
