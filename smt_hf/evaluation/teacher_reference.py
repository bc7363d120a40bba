"""The teacher by itself: what its labels say of the next token, which the cell is taught to reach."""

from typing import Any

import torch
import torch.nn.functional as F

from .free_running import by_horizon

# Labels of one call: bounds the attention, which grows with the square of them.
LABELS = 128


@torch.no_grad()
def evaluate_teacher(teacher: Any, input_ids: torch.Tensor, shift_labels: torch.Tensor) -> dict[str, Any]:
    """As `evaluate_rows`, from the teacher's own label at every timestep by its own readout.

    input_ids, shift_labels (B, T). Only timesteps within the teacher's `context_length` are judged, and only
    those are encoded at which some row has a target. No cell takes part, so nothing drifts.
    """
    length = min(input_ids.shape[1], teacher.config.context_length)
    x, y = input_ids[:, :length], shift_labels[:, :length]
    losses, hits = (torch.zeros(y.shape, dtype=torch.float64) for _ in range(2))
    asked = (y != -100).any(0).nonzero()[:, 0]
    for timesteps in asked.split(LABELS):
        labels = teacher.encode(x, timesteps.tolist())
        logits = teacher.decode(labels.flatten(0, 1)).view(*labels.shape[:2], -1).float()
        targets = y[:, timesteps]
        loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
        losses[:, timesteps.cpu()] = loss.double().cpu()
        hits[:, timesteps.cpu()] = (logits.argmax(-1) == targets).double().cpu()
    return by_horizon(losses.sum(0), hits.sum(0), (y != -100).sum(0).double().cpu())
