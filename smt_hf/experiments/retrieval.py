"""Retrieval: one marked value, held through noise. How far back can a memory that is never unrolled reach?"""

from .recipe import Length, Recipe

RETRIEVAL = Recipe(
    about="hold one marked value through noise (T = 64, 256, 1024)",
    dataset="retrieval",
    # From scratch, nothing is learned at 256: the curriculum's first lengths find what the marker means.
    # Batches shrink as rows grow, so that a step has 2,048 tokens at every length: enough rows to average
    # over, and hundreds of steps a minute.
    lengths={
        64: Length(2, {"batch-size": 32, "curriculum-start-length": 16, "rollout-length": 32}),
        256: Length(5, {"batch-size": 8, "curriculum-start-length": 32, "rollout-length": 64}),
        1024: Length(
            15,
            {
                "batch-size": 2,
                "curriculum-start-length": 32,
                "rollout-length": 128,
                # With two rows a step, five times this rate undoes what SMT has learned (RESULTS.md).
                "dmt-learning-rate": 3e-4,
            },
        ),
    },
)
