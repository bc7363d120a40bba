"""How good a model is while it trains: always the same rows, free-running from a cold start."""

from typing import Any

from smt_hf.data.dataset import SequenceDataset
from smt_hf.evaluation.free_running import doubling_timesteps, drift, evaluate_rows
from smt_hf.models.modeling_smt import SMTForCausalLM

from .teacher import SMTTeacher

# Drift needs the teacher's labels too, and its mean settles with few rows.
DRIFT_ROWS = 16


def validate(
    model: SMTForCausalLM, teacher: SMTTeacher | None, dataset: SequenceDataset, count: int, horizon: int
) -> dict[str, Any]:
    """Metrics of `evaluate_rows` on the evaluation rows of `dataset` and, with a teacher, the drift from it."""
    x, y = dataset.evaluation_rows(count, horizon)
    metrics = evaluate_rows(model, x, y)
    if teacher is not None:
        limit = min(x.shape[1], teacher.config.context_length)
        metrics["drift"] = drift(model, teacher, x[:DRIFT_ROWS].to(model.device), doubling_timesteps(limit))
    return metrics
