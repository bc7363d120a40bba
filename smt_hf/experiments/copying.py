"""Copying: a whole string said back from its end. How much fits into the memory?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

COPY = Recipe(
    about="say a string back from its end (16 symbols of 8 values)",
    dataset="reverse-copy",
    # 16 symbols are 48 bits, and every one of them has to be learned to be kept: more time than for one value.
    lengths={32: Length(6, {"curriculum-start-length": 4, "rollout-length": 31})},
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
    # Longer strings hold more than was ever trained; half the length shows what the memory did learn.
    tested=(1, 2),
)
