"""Copying: a whole string said back from its end. How much fits into the memory?"""

from ..recipe import SYMBOLS, SYMBOLS_SMT, Length, Recipe

COPY = Recipe(
    about="say a string back from its end (16 symbols of 8 values)",
    dataset="reverse-copy",
    # 16 symbols are 48 bits, and each must be learned, so this takes longer than one value does. The earlier
    # weights gave 0.66 after 6 minutes; BPTT needs 6 at most.
    lengths={32: Length(15, {"curriculum_start_length": 4, "rollout_length": 16})},
    arguments=SYMBOLS,
    # Rollouts of half the row with twice as many labels give 0.83 instead of 0.81 after 5 minutes. With as
    # many labels and three seeds they give 0.90 instead of 0.78 after 15. A quarter of the row gives 0.75.
    # SMT gets a fifth of the time, since labels stop improving after 2.4 minutes: 6 and 9 minutes give 0.78,
    # and 2.4 and 9 give 0.93. Three seeds differed by 0.1 (studies/LOG.md).
    # At 1.5e-3 DMT learns nothing until the rate falls: 0.66 after two minutes instead of 0.75.
    smt={
        **SYMBOLS_SMT,
        "dmt_label_every": 2,
        "dmt_fraction": 0.8,
        "dmt_learning_rate": 5e-4,
        # Every second step asks the label at the end of the string for all of it. After 2 minutes that label
        # holds 0.97 of the string, instead of 0.65 where steps ask at any timestep.
        "prompt_fraction": 0.5,
        # The cell's own memories must answer too: one step from a label 0.97 are right instead of 0.69. Three
        # times the dynamics and uniformity weights keep the string from suffering.
        "cell_readout_weight": 1,
        "dynamics_weight": 3,
        "uniformity_weight": 0.3,
    },
    # Longer strings hold more than was ever trained, so this tests no more than twice the length.
    tested=(1, 2),
)
