"""Modular arithmetic in context: infer a hidden line from examples and apply it. Can the memory compute?"""

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

MODULAR = Recipe(
    about="find a, b of y = a·x + b modulo 7 from examples, and go on",
    dataset="modular",
    # The shortest row with an answer has 5 tokens; from there on the curriculum adds examples.
    lengths={16: Length(8, {"curriculum_start_length": 5, "rollout_length": 15})},
    arguments=SYMBOLS,
    smt=SYMBOLS_SMT,
)
