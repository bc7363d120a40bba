"""Text: Python's manual, byte by byte. How do the methods compare where dependencies are short?"""

from ..recipe import Length, Recipe, by_name

DEEPER = {"dmt_gradient_steps": 8, "dmt_imitation_weight": 3}
TEXT = Recipe(
    about="python-docs, bits per byte by horizon",
    dataset="python-docs",
    # SMT reads the preset's 128 tokens of context and 32 of future. BPTT reads 64, where it does best and sees
    # more windows in the same time (studies/LOG.md).
    lengths={160: Length(7)},
    arguments={"preset": "small"},
    smt={"learning_rate": 2e-3},
    bptt={"sequence_length": 64},
    tested=(),  # judged by horizon instead
    # Of 1, 4, 8 and 32 steps, and of weights 3 and 10, what does best (studies/LOG.md). Then labels that are
    # read off a trunk, which learns alone for a fifth of the time.
    variants={
        **by_name(DEEPER),
        "projected": {**DEEPER, "encoder_type": "projected", "trunk_fraction": 0.2, "num_labels": 16},
    },
)
