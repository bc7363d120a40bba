"""Ablations: retrieval with one thing changed at a time. Which parts of the method does it need?

To ask it of another task: --set dataset=parity curriculum-start-length=4, with an --output-dir of its own.
"""

from ..recipe import Recipe, by_name
from .retrieval import RETRIEVAL

ABLATIONS = Recipe(
    about="SMT on retrieval with one part of it changed at a time",
    dataset="retrieval",
    lengths={64: RETRIEVAL.lengths[64]},
    cells=("transformer",),  # a cell without a gate does not remember by itself
    bptt_learning_rates=(),
    variants=by_name(
        {"prediction_weight": 0},  # then only the readout and the trunk tell the encoder what to remember
        {"dynamics_weight": 0},  # nothing trains the cell before DMT
        {"dynamics_weight": 1},  # ten times the paper's weight may make labels easy to follow and empty
        {"dynamics_weight": 1, "uniformity_weight": 0.1},  # … unless labels must differ, as for strings
        {"detach_labels": True},  # the cell has to follow labels that do not care whether it can
        {"uniformity_weight": 0},  # it keeps labels from collapsing; next, ten times its weight
        {"uniformity_weight": 0.01},
        {"future_length": 1},  # a label must only answer now: nothing asks it to hold the value
        {"future_length": 8},
        {"num_labels": 2},  # the paper's: one transition a row
        {"encoder_type": "bidirectional"},  # the paper's: one pass for each label, and no trunk
        {"dmt_fraction": 0},  # SMT for the whole budget
        {"readout_weight": 0},  # our two deviations from the paper, one after the other, and together
        {"trunk_weight": 0},
        {"readout_weight": 0, "trunk_weight": 0},
    ),
)
