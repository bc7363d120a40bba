"""GRU cell (Cho et al. 2014), in the variant of `torch.nn.GRUCell`."""

import torch

from .cell_base import StackedCell


class GRUCell(StackedCell):
    """r, z = σ(W x + U h), n = tanh(W x + r ⊙ U h), h' = (1 − z) ⊙ n + z ⊙ h.

    Before normalisation a step equals `torch.nn.GRUCell` on the flattened memory.
    """

    num_gates = 3

    def update(self, gates_in, gates_hidden, states):
        (h,) = states
        r_in, z_in, n_in = gates_in.chunk(3, dim=1)
        r_h, z_h, n_h = gates_hidden.chunk(3, dim=1)
        r = torch.sigmoid(r_in + r_h)
        z = torch.sigmoid(z_in + z_h)
        n = torch.tanh(torch.addcmul(n_in, r, n_h))
        return (torch.lerp(n, h, z),)
