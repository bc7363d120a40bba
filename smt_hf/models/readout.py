"""Readout: what to say from a memory. The same network is the teacher's decoder."""

import torch
from torch import nn

from .layers import Block, RotaryTable, attend_all, attend_causal


class Readout(nn.Module):
    """Causal Transformer whose prefix is the memory, [m_t ; x_{t+1} … x_{t+F−1}].

    The state after the last memory token predicts y_t, the one after x_{t+1} predicts y_{t+1}, and so
    on. The RNN uses the memory alone; the teacher's decoder also reads the future. Being one class,
    their weights are interchangeable.
    """

    def __init__(self, config, max_future: int = 0):
        super().__init__()
        self.rotary = RotaryTable(config, config.num_memory_tokens + max_future)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_readout_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, memory: torch.Tensor, future_embeds: torch.Tensor | None = None) -> torch.Tensor:
        """memory (N, K, D) [, embeddings (N, F−1, D)] → hidden states (N, 1, D) [or (N, F, D)]."""
        num_memory_tokens = memory.shape[1]
        x = memory if future_embeds is None else torch.cat([memory, future_embeds], dim=1)
        rotary = self.rotary(slice(0, x.shape[1]))
        for block in self.blocks[:-1]:
            x = block(x, rotary, attend_causal)
        if future_embeds is None:  # one query, which sees every key: no mask, no wasted positions
            x = self.blocks[-1](x, rotary, attend_all, queries=slice(-1, None))
        else:
            x = self.blocks[-1](x, rotary, attend_causal)[:, num_memory_tokens - 1 :]
        return self.norm(x)
