"""Stack: push and pop. Does the memory keep an order while it changes, and for longer than it was trained?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

STACK = Recipe(
    about="name each element that is popped off a stack (T = 64, tested to 256)",
    dataset="stack",
    lengths={64: Length(15, {"curriculum-start-length": 8, "rollout-length": 32})},
    arguments=SYMBOLS,
    # The cell stays 0.02 behind its teacher after 3.6 minutes of DMT and after 9; it is the teacher, 0.95 right
    # after 2.4 minutes and 0.97 after 6, that needs the time.
    smt={**SYMBOLS_SMT, "dmt-fraction": 0.4},
)
