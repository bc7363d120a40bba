"""LSTM cell (Hochreiter & Schmidhuber 1997), in the variant of `torch.nn.LSTMCell`."""

import torch

from .cell_base import StackedCell


class LSTMCell(StackedCell):
    """i, f, o = σ(W x + U h), g = tanh(W x + U h), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').

    Both h and c live in the memory, half of a layer's tokens each, and both are RMS-normalised, so
    num_memory_tokens must be even. Before normalisation a step equals `torch.nn.LSTMCell`.
    """

    num_gates = 4
    states_per_layer = 2

    def update(self, gates_in, gates_hidden, states):
        _, c = states
        i, f, g, o = (gates_in + gates_hidden).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
