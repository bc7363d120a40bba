"""Where free-running memories lie: their first two principal components, by group."""

from typing import Any

import torch


@torch.no_grad()
def memory_map(model: Any, input_ids: torch.Tensor, groups: list[str], group_by: str) -> dict[str, Any]:
    """Read rows (N, T) from a cold start → the plane that holds most of the variance of the N last memories.

    `points`: N pairs, each memory about their mean along the first two principal components, in units of a
    memory entry (RMS 1), to 4 digits. `groups`: of each point, as given. `explained`: the share of the
    variance that the plane holds, 0 … 1; 0 where all memories are equal.
    """
    outputs = model.model(input_ids=input_ids, use_cache=True, logits_to_keep=1)
    memory = outputs.cache.layers[0].read().flatten(1).double()
    left, singular, _ = torch.linalg.svd(memory - memory.mean(0), full_matrices=False)
    variance = singular.square()
    explained = variance[:2].sum() / variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    points = (left[:, :2] * singular[:2]).tolist()
    return {
        "points": [[round(x, 4) for x in point] for point in points],
        "groups": groups,
        "group_by": group_by,
        "explained": round(explained.item(), 4),
    }
