"""Stack: push and pop. Does the memory keep an order while it changes, and for longer than it was trained?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

STACK = Recipe(
    about="name each element that is popped off a stack (T = 64, tested to 256)",
    dataset="stack",
    lengths={64: Length(6, {"curriculum-start-length": 8, "rollout-length": 32})},
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
)
