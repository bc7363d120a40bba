"""PlainGRUCell: the GRU as it was published, for the experiment `normalisation`."""

from smt_hf.models.cell_gru import GRUCell


class PlainGRUCell(GRUCell):
    """`GRUCell` without the RMS normalisation of its memory, h' = (1 − z) ⊙ n + z ⊙ h.

    n is a tanh and z lies in 0 … 1, so that every entry of h' lies between n and h: |h'| ≤ max(1, |h|).
    From entries within ±1 it never leaves them, and its RMS stays below 1. The teacher's labels have RMS 1:
    unless all their entries are ±1, some lie beyond, where no step from within can go. The dynamics loss has
    a floor that the cell cannot pass, whatever it learns.
    """

    def forward(self, memory, inputs):
        return self.step(memory.to(inputs.dtype), inputs).float()
