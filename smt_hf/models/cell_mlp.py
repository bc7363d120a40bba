"""MLP cell: residual feed-forward blocks over the whole memory."""

import torch.nn.functional as F
from torch import nn

from .cell_base import MemoryCell


class MLPCell(MemoryCell):
    """m ← m + W_out gelu(W_mem norm(m) + W_in x), `num_hidden_layers` times, on the memory as one vector.

    The hidden width is K·`intermediate_size`. W_in of every block is applied to all timesteps at once.
    """

    def __init__(self, config):
        super().__init__(config)
        width = config.num_memory_tokens * config.hidden_size
        hidden = config.num_memory_tokens * config.intermediate_size
        layers = config.num_hidden_layers
        self.input_proj = nn.Linear(config.hidden_size, layers * hidden)
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=config.rms_norm_eps) for _ in range(layers))
        self.up_proj = nn.ModuleList(nn.Linear(width, hidden, bias=False) for _ in range(layers))
        self.down_proj = nn.ModuleList(nn.Linear(hidden, width, bias=False) for _ in range(layers))

    def project_inputs(self, inputs_embeds):
        return self.input_proj(inputs_embeds)

    def step(self, memory, inputs):
        m = memory.flatten(1)
        parts = inputs.chunk(len(self.norms), dim=1)
        for norm, up, down, part in zip(self.norms, self.up_proj, self.down_proj, parts, strict=True):
            m = m + down(F.gelu(up(norm(m)) + part))
        return m.view_as(memory)
