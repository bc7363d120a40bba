"""Sweeps: DMT by parallel sweeps beside DMT one token after another, at equal numbers of steps.

How many sweeps of a window of 256 tokens does it take to do as well? Steps and not minutes are the budget:
sweeps trade work for depth, which pays on machines that wait for depth and not on one CPU core.
"""

from .recipe import Length, Recipe, by_name

SWEEPS = Recipe(
    about="text, DMT over 256 tokens: sequential, and in 4, 8 or 15 sweeps",
    dataset="python-docs",
    # Rows of 288 tokens: a future of 32, and labels as far as 272, so that a window of 256 has room to start
    # elsewhere than at the first token. On one core a step of SMT takes 0.35 s, and one of DMT 2.1 s
    # sequentially, 2.2, 2.6 and 3.1 s in 4, 8 and 15 sweeps, and 0.3 s with every 16th label alone: 330 and
    # 110 of them are 6 to 8 minutes, or 2.
    lengths={288: Length(6, {"max-steps": 440, "context-length": 272, "rollout-length": 256})},
    cells=("gru",),
    arguments={"preset": "small"},
    smt={"learning-rate": 2e-3, "dmt-fraction": 0.25},  # the rate of the experiment `text`
    bptt_learning_rates=(),
    tested=(),
    variants=by_name(
        {"num-sweeps": 4},
        {"num-sweeps": 8},
        {"num-sweeps": 15},
        # The official code's spacing, a sixteenth of the work, with its sequential rollout and by sweeps.
        {"dmt-label-every": 16},
        {"num-sweeps": 8, "dmt-label-every": 16},
        {"num-sweeps": 15, "dmt-label-every": 16},
    ),
)
