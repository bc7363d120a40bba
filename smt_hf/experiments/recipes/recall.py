"""Associative recall: keys and values. Can the memory be asked by content?"""

from dataclasses import replace

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe, by_name

RECALL = Recipe(
    about="say the value of each key that is asked for (8 keys)",
    dataset="recall",
    # A key takes three tokens. The tests have 16 and 32 keys; the vocabulary has 32.
    lengths={24: Length(15, {"curriculum_start_length": 6, "rollout_length": 23})},
    arguments=SYMBOLS,
    tested=(1, 2, 4),
    smt={
        **SYMBOLS_SMT,  # 5e-4 in DMT, with 0.7 of the time, gives 0.64 instead of 0.74
        # The cell can know only what the label at the end of the list holds. That is half of the values after
        # two minutes, and 0.74 of them after three and a half where most steps ask it for all. It still rises
        # then, so SMT has half of the time.
        "dmt_fraction": 0.5,
        "prompt_fraction": 0.8,
        "cell_readout_weight": 1,  # one step from a label 0.69 of the answers are right, instead of 0.3
    },
    # A label of eight vectors holds more of the list, and takes longer to follow.
    variants=by_name({"num_memory_tokens": 8}, {"num_memory_tokens": 8, "method": "bptt"}),
)
# The vocabulary has as many keys as a row, so every row has the same keys: 24 bits instead of 47.
RECALL8 = replace(
    RECALL,
    about="the same, with the same 8 keys in every row",
    dataset="recall:num_keys=8",
    lengths={24: replace(RECALL.lengths[24], minutes=8)},
    tested=(1,),
    variants={},
    smt=SYMBOLS_SMT,  # half as many bits need less time
)
