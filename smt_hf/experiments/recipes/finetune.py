"""Finetune: SMT and DMT, then BPTT. Does a cell that has a good start by itself pass its teacher?"""

from ..recipe import Recipe, by_name
from .text import TEXT

FINETUNE = Recipe(
    about="text by SMT, DMT and BPTT at the end, beside SMT and DMT, and BPTT alone",
    dataset=TEXT.dataset,
    lengths=TEXT.lengths,
    arguments=TEXT.arguments,
    smt=TEXT.smt,
    bptt=TEXT.bptt,
    tested=(),
    # SMT's share bounds the teacher and DMT needs little, so BPTT gets what DMT can spare. BPTT goes on from
    # trained weights, so its rate may have to be lower than from scratch: the second is a tenth of the first.
    variants=by_name(
        {"dmt_fraction": 0.2, "bptt_fraction": 0.4, "bptt_learning_rate": 1e-3},
        {"dmt_fraction": 0.2, "bptt_fraction": 0.4, "bptt_learning_rate": 1e-4},
    ),
)
