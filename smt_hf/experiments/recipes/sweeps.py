"""Sweeps: DMT by parallel sweeps beside DMT one token after another, at equal numbers of steps.

How many sweeps of a window of 256 tokens do as well? The budget is in steps instead of minutes: sweeps trade
work for depth, which pays on machines that wait for depth and costs time on one CPU core.
"""

from ..recipe import Length, Recipe, by_name

SWEEPS = Recipe(
    about="text, DMT over 256 tokens: sequential, and in 4, 8 or 15 sweeps",
    dataset="python-docs",
    # Rows have 288 tokens: a future of 32, and labels up to 272, so that a window of 256 can start elsewhere
    # than at the first token. On one core a step of SMT takes 0.35 s. A step of DMT takes 2.1 s sequentially,
    # 2.2, 2.6 and 3.1 s in 4, 8 and 15 sweeps, and 0.3 s with every 16th label alone. So 330 steps of SMT and
    # 110 of DMT take 6 to 8 minutes, or 2.
    lengths={288: Length(6, {"max_steps": 440, "context_length": 272, "rollout_length": 256})},
    cells=("gru",),
    arguments={"preset": "small"},
    smt={"learning_rate": 2e-3, "dmt_fraction": 0.25},  # the rate of the experiment `text`
    bptt_learning_rates=(),
    tested=(),
    variants=by_name(
        {"num_sweeps": 4},
        {"num_sweeps": 8},
        {"num_sweeps": 15},
        # The official code teaches every 16th step: a sixteenth of the work, here sequentially and by sweeps.
        {"dmt_label_every": 16},
        {"num_sweeps": 8, "dmt_label_every": 16},
        {"num_sweeps": 15, "dmt_label_every": 16},
    ),
)
