"""Compression: the same strings in memories of different sizes. How many bits does a byte of state hold?

The width of the memory is that of the teacher and of the readout as well, so a small memory has a small
teacher.
"""

from dataclasses import replace

from ..recipe import SYMBOLS, SYMBOLS_SMT, Recipe, by_name
from .copying import COPY

COMPRESSION = Recipe(
    about="say a string back from its end, out of 64 to 1,024 bytes of state",
    dataset=COPY.dataset,
    # 16 symbols of 3 bits: 6 bytes, which every one of the memories could hold.
    lengths={32: replace(COPY.lengths[32], minutes=6)},
    cells=("gru",),
    arguments={**SYMBOLS, "num_memory_tokens": 4},  # 64 × 4, the largest, is the recipe as it is
    # The copying recipe had this share when these ran. A fifth of 6 minutes is too little for the labels.
    smt={**SYMBOLS_SMT, "dmt_label_every": 2, "dmt_fraction": 0.6, "dmt_learning_rate": 5e-4},
    bptt_learning_rates=(),
    tested=COPY.tested,
    # K·D = 16, 32, 64, 128: each doubles the state of the one before.
    variants=by_name(
        {"hidden_size": 16, "num_memory_tokens": 1},
        {"hidden_size": 32, "num_memory_tokens": 1},
        {"hidden_size": 32, "num_memory_tokens": 2},
        {"hidden_size": 64, "num_memory_tokens": 2},
    ),
)
