"""Text: Python's manual, byte by byte. The two methods where BPTT has all that it needs: short dependencies."""

from ..recipe import Length, Recipe

TEXT = Recipe(
    about="python-docs, bits per byte by horizon",
    dataset="python-docs",
    # The preset's 128 tokens of context and 32 of future. BPTT does best on windows of 64, and sees more of
    # them in the same time (studies/LOG.md), so this is its length whatever that of SMT.
    lengths={160: Length(7)},
    arguments={"preset": "small"},
    smt={"learning_rate": 2e-3},
    bptt={"sequence_length": 64},
    tested=(),  # judged by horizon instead
)
