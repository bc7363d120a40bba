"""Stack: push and pop. Does the memory keep an order while it changes, and for longer than it was trained?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

STACK = Recipe(
    about="name each element that is popped off a stack (T = 64, tested to 256)",
    dataset="stack",
    # The cell comes close to its teacher; it is the teacher that needs the time.
    lengths={64: Length(15, {"curriculum-start-length": 8, "rollout-length": 32})},
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
)
