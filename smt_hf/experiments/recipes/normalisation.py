"""Normalisation: the GRU cell with and without its RMS norm. Why does the paper see GRU collapse under SMT?"""

from ..recipe import Recipe
from .retrieval import RETRIEVAL

NORMALISATION = Recipe(
    about="the GRU cell on retrieval, normalised as here and as it was published",
    dataset="retrieval",
    lengths={64: RETRIEVAL.lengths[64]},
    # BPTT asks for no labels, so it tells what the cell cannot do from what SMT cannot do with it.
    cells=("gru", "smt_hf.experiments.plain_gru:PlainGRUCell"),
)
