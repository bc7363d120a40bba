"""A record of a run, made by hand."""

from typing import Any

from smt_hf.runs.record import RunRecord


def a_record(**changes: Any) -> RunRecord:
    """A finished run of a GRU on text; `spec` is laid over its settings."""
    spec = {"dataset": "python-docs", "cell": "gru", "method": "smt", "seed": 7, "learning_rate": 2e-3}
    spec |= {"eval_horizon": 256, "hub_model_id": None, **changes.pop("spec", {})}
    values: dict[str, Any] = {
        "spec": spec,
        "given": list(spec),
        "status": "finished",
        "method": "smt",
        "cell": "gru",
        "seed": 7,
        "phases": [],
        "model": {},
        "teacher": None,
        "parameters": 821_376,
        "state_bytes": 2048,
        "dataset": "python-docs",
        "data_kind": "text",
        "data_fingerprint": "0123456789abcdef",
        "sequence_length": 160,
        "bytes_per_token": 1.0,
        "output_dir": "runs/run",
        **changes,
    }
    return RunRecord(**values)
