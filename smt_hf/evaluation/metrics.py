"""From nats per target to what people compare: bits per byte, or accuracy."""

import math
from typing import Any


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """Cross-entropy in nats per token → bits per byte of text."""
    return nats_per_token / math.log(2) / bytes_per_token


def describe(metrics: dict[str, Any], bytes_per_token: float | None) -> str:
    """One line about free-running metrics; without bytes (a synthetic task) it is the accuracy."""
    if bytes_per_token is None:
        return f"accuracy {metrics['accuracy']:.4f} from a cold start"
    parts = [
        f"{part['start']}–{part['end']}: {bits_per_byte(part['loss'], bytes_per_token):.3f}"
        for part in metrics["by_horizon"]
    ]
    return f"bits per byte by horizon {', '.join(parts)}"


def report(metrics: dict[str, Any], bytes_per_token: float | None, state_bytes: int, parameters: int) -> dict:
    """What `smt-hf evaluate --json` prints."""
    sizes = {"state_bytes": state_bytes, "parameters": parameters}
    if bytes_per_token is None:
        return {"accuracy": metrics["accuracy"], "tokens": metrics["targets"], **sizes}
    by_horizon = [
        {
            "start": p["start"],
            "end": p["end"],
            "bits_per_byte": bits_per_byte(p["loss"], bytes_per_token),
        }
        for p in metrics["by_horizon"]
    ]
    return {
        "bits_per_byte": bits_per_byte(metrics["loss"], bytes_per_token),
        "tokens": metrics["targets"],
        "by_horizon": by_horizon,
        **sizes,
    }
