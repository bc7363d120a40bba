"""The contract of a memory cell, and the glossary of this package.

| code                | paper        | shape     | meaning                                              |
|---------------------|--------------|-----------|------------------------------------------------------|
| `memory`            | m_t          | (B, K, D) | all the model knows of x_0 … x_t; each token RMS 1   |
| `initial_memory`    | m_∅          | (K, D)    | the memory before any token                          |
| `cell`              | f_θ          |           | m_{t+1} = f_θ(m_t, x_{t+1}), the only recurrence      |
| `readout`           | g            |           | logits_t = lm_head(readout(m_t))                     |
| `memory_target`     | E_φ(x_0…x_t) | (B, K, D) | the teacher's label for m_t                          |
| `memory_pred`       | m̂_t          | (B, K, D) | the cell's answer                                    |
| `context_length`    | T_c          | tokens    | what the teacher reads                               |
| `future_length`     | F            | tokens    | what a memory label must predict                     |
| `rollout_length`    | R            | tokens    | free-running steps of one DMT window                 |
| `num_sweeps`        | P            |           | parallel sweeps instead of R sequential steps        |
"""

import torch
from torch import nn

from .layers import normalize_memory


class MemoryCell(nn.Module):
    """One nonlinear memory update, m_{t+1} = f_θ(m_t, x_{t+1}).

    To add a cell, subclass this, write `step`, and `register_cell("name", YourCell)`. The constructor
    takes the `SMTConfig` alone. Whatever does not depend on the memory belongs in `project_inputs`,
    which sees all timesteps in one call; `step` is what has to be done one token after another.
    """

    def __init__(self, config):
        super().__init__()
        self.num_memory_tokens = config.num_memory_tokens
        self.hidden_size = config.hidden_size
        self.eps = config.rms_norm_eps

    def project_inputs(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Token embeddings (..., D) → what `step` wants of them (..., I). Identity unless overridden."""
        return inputs_embeds

    def step(self, memory: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """memory (B, K, D), inputs (B, I) → the next memory (B, K, D), before normalisation."""
        raise NotImplementedError

    def forward(self, memory: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """f_θ: memory (B, K, D) float32, projected inputs (B, I) → (B, K, D) float32, each token RMS 1."""
        return normalize_memory(self.step(memory.to(inputs.dtype), inputs), self.eps)


class StackedCell(MemoryCell):
    """What the classical cells share: `num_hidden_layers` layers, each with its part of the memory.

    Layer 0 reads the token, layer ℓ the new state of layer ℓ−1, as in `torch.nn.GRU(num_layers=…)`.
    A layer's state is `states_per_layer` vectors of equal width (2 for an LSTM: h and c), the first of
    which is its output. Subclasses set `num_gates`, `states_per_layer` and write `update`.
    """

    num_gates = 1
    states_per_layer = 1

    def __init__(self, config):
        super().__init__(config)
        parts = config.num_hidden_layers * self.states_per_layer
        if config.num_memory_tokens % parts:
            raise ValueError(
                f"num_memory_tokens {config.num_memory_tokens} cannot be shared out over "
                f"{config.num_hidden_layers} layer(s) of the {config.cell!r} cell; use a multiple of {parts}."
            )
        width = config.num_memory_tokens * config.hidden_size // parts
        gates = self.num_gates * width
        self.input_proj = nn.Linear(config.hidden_size, gates)
        self.lower_proj = nn.ModuleList(nn.Linear(width, gates) for _ in range(config.num_hidden_layers - 1))
        self.hidden_proj = nn.ModuleList(nn.Linear(width, gates) for _ in range(config.num_hidden_layers))

    def project_inputs(self, inputs_embeds):
        return self.input_proj(inputs_embeds)

    def update(
        self, gates_in: torch.Tensor, gates_hidden: torch.Tensor, states: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        """gates_in, gates_hidden (B, num_gates·W): W_i x + b_i and W_h h + b_h; states: (B, W) each."""
        raise NotImplementedError

    def step(self, memory, inputs):
        states = memory.flatten(1).chunk(len(self.hidden_proj) * self.states_per_layer, dim=1)
        new: list[torch.Tensor] = []
        for layer, hidden_proj in enumerate(self.hidden_proj):
            first = layer * self.states_per_layer
            if layer:
                inputs = self.lower_proj[layer - 1](new[first - self.states_per_layer])
            own = states[first : first + self.states_per_layer]
            new.extend(self.update(inputs, hidden_proj(own[0]), own))
        return torch.cat(new, dim=1).view_as(memory)
