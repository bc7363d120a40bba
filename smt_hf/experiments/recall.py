"""Associative recall: keys and values. Can the memory be asked by content?"""

from .recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

RECALL = Recipe(
    about="say the value of each key that is asked for (8 keys)",
    dataset="recall",
    # Three tokens a key. 16 and 32 keys, as many as the vocabulary has, are the tests.
    lengths={24: Length(10, {"curriculum-start-length": 6, "rollout-length": 23})},
    arguments=SYMBOLS,
    smt={**SYMBOLS_SMT, "dmt-fraction": 0.7},  # the teacher has no error left after a third of the time
)
