"""Transformer cell: the paper's RNN, a Transformer over the memory tokens and the new token."""

import torch
from torch import nn

from .cell_base import MemoryCell
from .layers import Block, RotaryTable, attend_all


class TransformerCell(MemoryCell):
    """Bidirectional blocks over [m_t ; x_{t+1}], K + 1 positions, of which the first K are the next memory.

    Source: Kumar & Isola 2026. Deviation: the last block does not compute the token's position, which
    nobody reads.
    """

    def __init__(self, config):
        super().__init__(config)
        self.rotary = RotaryTable(config, config.num_memory_tokens + 1)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def step(self, memory, inputs):
        x = torch.cat([memory, inputs.unsqueeze(1)], dim=1)
        rotary = self.rotary(slice(None))
        for block in self.blocks[:-1]:
            x = block(x, rotary, attend_all)
        return self.blocks[-1](x, rotary, attend_all, queries=slice(0, self.num_memory_tokens))
