"""Rolling the cell out on its own memories: one token after another, or all at once.

B rows, R timesteps, K memory tokens of width D. Inputs: what `cell.project_inputs` made of x_{s+1} … x_{s+R}.
Rollouts have no gradient and return memories *before* inputs, of m̂_s … m̂_{s+R−1}, float32. `unroll` has one.
"""

import torch

from smt_hf.models.cell_base import MemoryCell


@torch.no_grad()
def sequential_rollout(cell: MemoryCell, memory: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Free-running: m̂_s = memory (B, K, D), m̂_{t+1} = f_θ(m̂_t, x_{t+1}). All of them,
    (B, R, K, D). Sequential depth R − 1."""
    memories = [memory]
    for x in inputs[:, :-1].unbind(1):
        memories.append(cell(memories[-1], x))
    return torch.stack(memories, dim=1)


@torch.no_grad()
def sweep_rollout(
    cell: MemoryCell, memories: torch.Tensor, inputs: torch.Tensor, chosen: torch.Tensor, num_sweeps: int
) -> torch.Tensor:
    """Of the n `chosen` steps (0 … R−1), m̂ after P = `num_sweeps` steps on the cell's own path, (B, n, K, D).

    Each path is independent of the others, so a sweep takes all of them one step on: sequential depth P,
    and n P applications of the cell. R − 1 sweeps equal the sequential rollout.
    memories (B, n, K, D): the teacher's, P steps before each chosen one, or m_s where the window begins
    later than that; such a path is shorter.
    """
    batch, number = memories.shape[:2]
    for sweep in range(num_sweeps):
        step = chosen - num_sweeps + sweep
        flat_inputs = inputs[:, step.clamp(min=0)].flatten(0, 1)
        new = cell(memories.flatten(0, 1), flat_inputs).view(batch, number, *memories.shape[2:])
        memories = torch.where((step >= 0)[:, None, None], new, memories)
    return memories


def unroll(cell: MemoryCell, memories: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """With gradient: n stretches of k steps each, from memories (B, n, K, D) on inputs (B, n, k, …) that the
    cell has projected → the memories after each step, (B, n · k, K, D)."""
    rows = memories.flatten(0, 1)
    made = []
    for x in inputs.flatten(0, 1).unbind(1):
        rows = cell(rows, x)
        made.append(rows)
    return torch.stack(made, dim=1).view(len(memories), -1, *memories.shape[2:])
