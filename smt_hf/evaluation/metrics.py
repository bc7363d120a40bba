"""From nats per target to what people compare: bits per byte, bits per dimension, or accuracy."""

from typing import Any

from smt_hf.data.kinds import METRICS, bits_per_byte, in_words


def describe(metrics: dict[str, Any], kind: str, bytes_per_token: float | None) -> str:
    """One line about free-running metrics of a `kind` of data; tasks have no bytes per token."""
    if kind == "task" or bytes_per_token is None:
        return f"accuracy {metrics['accuracy']:.4f} from a cold start"
    parts = [
        f"{part['start']}–{part['end']}: {bits_per_byte(part['loss'], bytes_per_token):.3f}"
        for part in metrics["by_horizon"]
    ]
    return f"{in_words(kind)} by horizon {', '.join(parts)}"


def report(metrics: dict[str, Any], kind: str, bytes_per_token: float) -> dict[str, Any]:
    """What `smt-hf evaluate --json` prints of text and images, beside the sizes of the model."""
    name = METRICS[kind]
    by_horizon = [
        {"start": p["start"], "end": p["end"], name: bits_per_byte(p["loss"], bytes_per_token)}
        for p in metrics["by_horizon"]
    ]
    return {
        name: bits_per_byte(metrics["loss"], bytes_per_token),
        "tokens": metrics["targets"],
        "by_horizon": by_horizon,
    }


def report_by_length(metrics: dict[int, dict[str, Any]], chance: float) -> dict[str, Any]:
    """What it prints of a task: accuracy at the first length and at each length; `chance`: by guessing."""
    first = next(iter(metrics.values()))
    return {
        "accuracy": first["accuracy"],
        "chance": chance,
        "tokens": first["targets"],
        "by_length": {str(length): one["accuracy"] for length, one in metrics.items()},
    }
