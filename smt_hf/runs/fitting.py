"""Values that come from a preset give way to those that were given; given values are never changed."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from .arguments import BESIDE_SMT, ROLLOUT_PARTS, WITH_TRUNK

Values = Mapping[str, Any]
# Whether a value came from a preset, or is a default.
Free = Callable[[str], bool]


def fitted(values: Values, given: frozenset[str]) -> dict[str, Any]:
    """What of `values`, which are those of a `RunSpec`, must be another value to fit what was given.

    Values that were given and contradict one another are left for the description to refuse, and so are those
    out of range.
    """
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    changes: dict[str, Any] = {}
    if values["encoder_type"] not in WITH_TRUNK and "trunk_fraction" not in given:
        changes = {"trunk_fraction": 0.0}
        numbers |= changes
    for fit in (phases, rollouts, batches, heads):
        try:
            changes |= fit(numbers, lambda name: name not in given)
        except (KeyError, ZeroDivisionError):  # of a value that is missing, or 0
            continue
    return {name: value for name, value in changes.items() if value != values[name]}


def phases(values: Values, free: Free) -> dict[str, Any]:
    """A phase that was given its share leaves the others theirs of what remains, so that SMT keeps some."""
    shares = {name: values[name] for name in BESIDE_SMT}
    given = sum(share for name, share in shares.items() if not free(name))
    if round(sum(shares.values()), 9) < 1 or not 0 <= given <= 1:
        return {}
    return {name: round(share * (1 - given), 6) for name, share in shares.items() if free(name)}


def rollouts(values: Values, free: Free) -> dict[str, Any]:
    """A rollout is as long as its parts. Stretches longer than every n-th step would leave no step out."""
    length = values["rollout_length"]
    every, steps = ROLLOUT_PARTS
    if not free(every) and free(steps) and 1 < values[every] < values[steps]:
        return {steps: 1, **rollouts({**values, steps: 1}, free)}
    longer = [name for name in ROLLOUT_PARTS if values[name] > length >= 1]
    given = [values[name] for name in longer if not free(name)]
    if not given:
        return dict.fromkeys(longer, length)
    return {"rollout_length": max(given)} if free("rollout_length") else {}


def batches(values: Values, free: Free) -> dict[str, Any]:
    """The nearest batch that divides, over processes too, which the user has started."""
    parts, batch = values["gradient_accumulation_steps"], values["batch_size"]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if free("batch_size"):
        whole = parts * processes
        return {"batch_size": batch if batch % whole == 0 else max(1, round(batch / whole)) * whole}
    if free("gradient_accumulation_steps") and batch % parts:
        return {"gradient_accumulation_steps": max(n for n in range(1, parts) if batch % n == 0)}
    return {}


def heads(values: Values, free: Free) -> dict[str, Any]:
    """Heads of even width, as rotary embeddings need them."""
    width, number = values["hidden_size"], values["num_attention_heads"]
    if width % (2 * number) == 0 or number < 1 or width < 1:
        return {}
    if free("num_attention_heads"):
        return {"num_attention_heads": next((n for n in range(number, 0, -1) if width % (2 * n) == 0), 1)}
    return {"hidden_size": max(1, round(width / (2 * number))) * 2 * number} if free("hidden_size") else {}
