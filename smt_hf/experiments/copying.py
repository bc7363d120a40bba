"""Copying: a whole string said back from its end. How much fits into the memory?"""

from .recipe import Length, Recipe

COPY = Recipe(
    about="say a string back from its end (16 symbols of 8 values)",
    dataset="reverse-copy",
    # 16 symbols are 48 bits: every one of them has to be learned to be kept, hence the longer budget.
    lengths={32: Length(10, {"batch-size": 64, "curriculum-start-length": 4, "rollout-length": 31})},
    # Longer strings hold more than was ever trained; half the length shows what the memory did learn.
    tested=(1, 2),
)
