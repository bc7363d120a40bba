"""Retrieval: one marked value, held through noise. How far back can a memory that is never unrolled reach?"""

from ..recipe import Length, Recipe

RETRIEVAL = Recipe(
    about="hold one marked value through noise (T = 64, 256, 1024)",
    dataset="retrieval",
    # Nothing is learned at 256 from scratch, so the curriculum's first lengths find what the marker means.
    # Batches shrink as rows grow: a step has 2,048 tokens at every length, which are enough rows to average
    # over and leave hundreds of steps a minute.
    lengths={
        64: Length(2, {"batch_size": 32, "curriculum_start_length": 16, "rollout_length": 32}),
        256: Length(5, {"batch_size": 8, "curriculum_start_length": 32, "rollout_length": 64}),
        1024: Length(
            15,
            {
                "batch_size": 2,
                "curriculum_start_length": 32,
                "rollout_length": 128,
                # With two rows a step, five times this rate undoes what SMT has learned (studies/LOG.md).
                "dmt_learning_rate": 3e-4,
            },
        ),
    },
)
