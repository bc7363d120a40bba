"""Stack: push and pop. Does the memory keep an order while it changes, and for longer than it was trained?"""

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

STACK = Recipe(
    about="name each element that is popped off a stack (T = 64, tested to 256)",
    dataset="stack",
    lengths={64: Length(15, {"curriculum_start_length": 8, "rollout_length": 32})},
    arguments=SYMBOLS,
    # After 6 minutes of SMT the teacher is right 0.97 of the time, after 7.5 minutes 0.99. The cell gets 0.94
    # after 6, 7.5 or 9 minutes, and 0.96 with both cores and 1.5 times the steps.
    smt={**SYMBOLS_SMT, "dmt_fraction": 0.5},
)
