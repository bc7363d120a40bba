"""How good a model is while it trains: always the same rows, free-running from a cold start."""

from typing import Any

import torch

from smt_hf.evaluation.free_running import doubling_timesteps, drift, evaluate_rows
from smt_hf.models.modeling_smt import SMTForCausalLM

from .batching import collate
from .teacher import SMTTeacher

# Drift needs the teacher's labels too, and its mean settles with few rows.
DRIFT_ROWS = 16


def validation_rows(dataset: Any, count: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(input_ids, shift_labels) of the same `count` rows every time.

    Of a text, blocks of `horizon` tokens from all over it; of other datasets, the first rows.
    """
    if hasattr(dataset, "blocks"):
        x, y = dataset.blocks(horizon)
        spread = slice(None, None, max(1, len(x) // count))
        return x[spread][:count], y[spread][:count]
    first = range(min(len(dataset), count))
    rows = collate(
        dataset.__getitems__(first) if hasattr(dataset, "__getitems__") else [dataset[i] for i in first]
    )
    return rows["input_ids"], rows["shift_labels"]


def validate(
    model: SMTForCausalLM, teacher: SMTTeacher | None, dataset: Any, count: int, horizon: int
) -> dict[str, Any]:
    """Metrics of `evaluate_rows` on `validation_rows` and, with a teacher, the drift from it."""
    x, y = validation_rows(dataset, count, horizon)
    metrics = evaluate_rows(model, x, y)
    if teacher is not None:
        limit = min(x.shape[1], teacher.config.context_length)
        metrics["drift"] = drift(model, teacher, x[:DRIFT_ROWS].to(model.device), doubling_timesteps(limit))
    return metrics
