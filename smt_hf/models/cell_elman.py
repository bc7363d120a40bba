"""Elman cell (Elman 1990), in the variant of `torch.nn.RNNCell`."""

import torch

from .cell_base import StackedCell


class ElmanCell(StackedCell):
    """h' = tanh(W x + U h): no gate to keep anything, the hardest cell to train through time."""

    def update(self, gates_in, gates_hidden, states):
        return (torch.tanh(gates_in + gates_hidden),)
