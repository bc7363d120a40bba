"""Stack: push and pop. Does the memory keep an order while it changes, and for longer than it was trained?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

STACK = Recipe(
    about="name each element that is popped off a stack (T = 64, tested to 256)",
    dataset="stack",
    lengths={64: Length(15, {"curriculum-start-length": 8, "rollout-length": 32})},
    arguments=SYMBOLS,
    # The teacher is 0.95 right after 2.4 minutes, 0.97 after 6 and 0.99 after 9; of 9 and 6 minutes, with a
    # third of the rate in DMT, the cell made 0.942.
    smt={**SYMBOLS_SMT, "dmt-fraction": 0.5},
)
