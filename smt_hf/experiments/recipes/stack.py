"""Stack: push and pop. Does the memory keep an order while it changes, and for longer than it was trained?"""

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

STACK = Recipe(
    about="name each element that is popped off a stack (T = 64, tested to 256)",
    dataset="stack",
    lengths={64: Length(15, {"curriculum_start_length": 8, "rollout_length": 32})},
    arguments=SYMBOLS,
    # The teacher is 0.97 right after 6 minutes and 0.99 after 7.5; the cell 0.94 with either, and with 9;
    # 0.96 with both cores, and half as many steps again.
    smt={**SYMBOLS_SMT, "dmt_fraction": 0.5},
)
