"""Copying: a whole string said back from its end. How much fits into the memory?"""

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

COPY = Recipe(
    about="say a string back from its end (16 symbols of 8 values)",
    dataset="reverse-copy",
    # 16 symbols are 48 bits, and every one of them has to be learned to be kept: more time than for one value.
    # 0.66 after 6 minutes with the weights of before; BPTT needs no more than 6.
    lengths={32: Length(15, {"curriculum_start_length": 4, "rollout_length": 16})},
    arguments=SYMBOLS,
    # Half the row, twice as many labels: 0.83 and not 0.81 after 5 minutes, 0.90 and not 0.78 after 15 with
    # as many labels and three seeds; a quarter of it: 0.75.
    # And a fifth of the time for SMT: after 2.4 minutes labels say all that they will say. 0.78 after 6 and 9
    # minutes, and 0.93 after 2.4 and 9; but three seeds differed by 0.1 (studies/LOG.md).
    # At 1.5e-3 DMT stands still until the rate falls: 0.66 after two minutes of it, and not 0.75.
    smt={
        **SYMBOLS_SMT,
        "dmt_label_every": 2,
        "dmt_fraction": 0.8,
        "dmt_learning_rate": 5e-4,
        # Every second step asks the label at the end of the string for all of it: after 2 minutes it holds 0.97
        # of the string, and 0.65 where any timestep may come.
        "prompt_fraction": 0.5,
        # The answers of the cell's own memories, one step from a label: 0.97 right, and not 0.69; with three
        # times the dynamics and the uniformity, so that this does not cost the string.
        "cell_readout_weight": 1,
        "dynamics_weight": 3,
        "uniformity_weight": 0.3,
    },
    # Longer strings hold more than was ever trained; half the length shows what the memory did learn.
    tested=(1, 2),
)
