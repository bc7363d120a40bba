"""Marked: four values, or sixteen, held through noise. How much can be kept for a thousand tokens?"""

from dataclasses import replace

from .retrieval import RETRIEVAL

LENGTH = RETRIEVAL.lengths[1024]

MARKED = replace(
    RETRIEVAL,
    about="hold 4 marked values through noise, and say them in order (T = 1024)",
    dataset="marked:num_marked=4",
    lengths={1024: replace(LENGTH, minutes=10)},
    tested=(1, 4),
)
MARKED16 = replace(
    MARKED,
    about="the same with 16 marked values",
    dataset="marked:num_marked=16",
    # Rows of 64 tokens are the shortest that hold them.
    lengths={1024: replace(LENGTH, minutes=10, arguments={**LENGTH.arguments, "curriculum_start_length": 64})},
)
