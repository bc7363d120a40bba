"""Rolling the cell out on its own memories, without gradient: one token after another, or all at once.

B rows, R timesteps, K memory tokens of width D. Inputs: what `cell.project_inputs` made of x_{s+1} … x_{s+R}.
Both functions return the memories *before* each input, m̂_s … m̂_{s+R−1}, (B, R, K, D) float32.
"""

import torch

from smt_hf.models.cell_base import MemoryCell


@torch.no_grad()
def sequential_rollout(cell: MemoryCell, memory: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Free-running: m̂_s = memory (B, K, D), m̂_{t+1} = f_θ(m̂_t, x_{t+1}). Sequential depth R − 1."""
    memories = [memory]
    for x in inputs[:, :-1].unbind(1):
        memories.append(cell(memories[-1], x))
    return torch.stack(memories, dim=1)


@torch.no_grad()
def sweep_rollout(
    cell: MemoryCell, memories: torch.Tensor, inputs: torch.Tensor, num_sweeps: int
) -> torch.Tensor:
    """The same by Jacobi sweeps: m̂_{t+1} ← f_θ(m̂_t, x_{t+1}) at every timestep at once, P = `num_sweeps` times.

    memories (B, R, K, D): the teacher's m_s … m_{s+R−1}. After P sweeps m̂_t has been on the cell's own
    path for min(P, t − s) steps, so R − 1 sweeps equal the sequential rollout. Sequential depth P.
    """
    batch, length = inputs.shape[:2]
    flat_inputs = inputs[:, :-1].flatten(0, 1)
    for _ in range(min(num_sweeps, length - 1)):
        new = cell(memories[:, :-1].flatten(0, 1), flat_inputs).view(batch, length - 1, *memories.shape[2:])
        memories = torch.cat([memories[:, :1], new], dim=1)
    return memories
