"""Associative recall: keys and values. Can the memory be asked by content?"""

from dataclasses import replace

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe, by_name

RECALL = Recipe(
    about="say the value of each key that is asked for (8 keys)",
    dataset="recall",
    # Three tokens a key. 16 and 32 keys, as many as the vocabulary has, are the tests.
    lengths={24: Length(15, {"curriculum_start_length": 6, "rollout_length": 23})},
    arguments=SYMBOLS,
    tested=(1, 2, 4),
    smt={
        **SYMBOLS_SMT,  # with 5e-4 in DMT, and 0.7 of the time for it: 0.64, and not 0.74
        # What the label holds when the list has been read is all that the cell can know: after two minutes half
        # of the values, and after three and a half 0.74 of them where most steps ask it for all. It is still
        # rising then, so that SMT has half of the time.
        "dmt_fraction": 0.5,
        "prompt_fraction": 0.8,
        "cell_readout_weight": 1,  # one step from a label 0.69 of the answers are right then, and 0.3 without
    },
    # A label of eight vectors holds more of the list, and takes longer to follow.
    variants=by_name({"num_memory_tokens": 8}, {"num_memory_tokens": 8, "method": "bptt"}),
)
# With no more keys in the vocabulary than in a row, the keys are the same in every row: 24 bits and not 47.
RECALL8 = replace(
    RECALL,
    about="the same, with the same 8 keys in every row",
    dataset="recall:num_keys=8",
    lengths={24: replace(RECALL.lengths[24], minutes=8)},
    tested=(1,),
    variants={},
    smt=SYMBOLS_SMT,  # enough for half as many bits
)
