"""Free-running loss, accuracy and drift, by horizon (tokens since the start).

B rows, T tokens, K memory tokens of width D.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from smt_hf.models.modeling_smt import SMTForCausalLM

# Tokens read at a time: bounds the memories and logits alive, however long the sequence.
CHUNK = 256
BATCH = 32  # rows, likewise


def horizon_edges(length: int) -> list[int]:
    """0, 32, 64, 128, … , length: edges of buckets that double, since drift shows best on a log scale."""
    edges = [0]
    edge = 32
    while edge < length:
        edges.append(edge)
        edge *= 2
    return [*edges, length]


@torch.no_grad()
def token_losses(
    model: SMTForCausalLM, input_ids: torch.Tensor, shift_labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read rows (B, T) from a cold start → losses (B, T) in nats, 0 where there is no target, and whether
    the most probable token is the target (B, T)."""
    past = None
    losses = torch.zeros(shift_labels.shape, device=shift_labels.device)
    hits = torch.zeros_like(losses, dtype=torch.bool)
    for start in range(0, input_ids.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        # Most tasks ask only at their end, and a readout costs more than a step of most cells.
        asked = (shift_labels[:, part] != -100).any(0).nonzero()[:, 0]
        keep = asked if len(asked) else 1  # a forward reads something out
        outputs = model(input_ids=input_ids[:, part], cache=past, use_cache=True, logits_to_keep=keep)
        past = outputs.cache
        if not len(asked):
            continue
        logits, targets = outputs.logits.float(), shift_labels[:, start + asked]
        losses[:, start + asked] = F.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=-100, reduction="none"
        )
        hits[:, start + asked] = logits.argmax(-1) == targets
    return losses, hits


def by_horizon(losses: torch.Tensor, hits: torch.Tensor, count: torch.Tensor) -> dict[str, Any]:
    """Losses in nats, hits and number of targets at each position, (T,) float64 each, as `evaluate_rows`
    returns them."""

    def summary(start: int, end: int) -> dict[str, float]:
        part, n = slice(start, end), count[start:end].sum().item()
        return {"loss": (losses[part].sum() / n).item(), "accuracy": (hits[part].sum() / n).item()}

    edges = horizon_edges(len(count))
    buckets = [{"start": a, "end": b, **summary(a, b)} for a, b in pairwise(edges) if count[a:b].sum() > 0]
    total = summary(0, len(count)) if count.sum() > 0 else {"loss": math.nan, "accuracy": math.nan}
    return {**total, "targets": int(count.sum()), "by_horizon": buckets}


def evaluate_rows(
    model: SMTForCausalLM, input_ids: torch.Tensor, shift_labels: torch.Tensor, batch_size: int = BATCH
) -> dict[str, Any]:
    """Free-running, cold-start metrics of rows (N, T), `batch_size` at a time; see `evaluate_batches`."""
    parts = zip(input_ids.split(batch_size), shift_labels.split(batch_size), strict=True)
    return evaluate_batches(model, parts, input_ids.shape[1])


@torch.no_grad()
def evaluate_batches(
    model: SMTForCausalLM, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], length: int
) -> dict[str, Any]:
    """Free-running, cold-start metrics of batches of input_ids and shift_labels, (B, `length`) each.

    Returns `loss` (nats per target), `accuracy`, `targets` (their number) and `by_horizon`: the same per
    bucket of positions, `start` ≤ position < `end`, without buckets that have no target. The model's training
    mode is restored.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    loss = torch.zeros(length, dtype=torch.float64)
    hits, count = torch.zeros_like(loss), torch.zeros_like(loss)
    for input_ids, shift_labels in batches:
        targets = shift_labels.to(device)
        losses, correct = token_losses(model, input_ids.to(device), targets)
        loss += losses.double().sum(0).cpu()
        hits += correct.sum(0).cpu()
        count += (targets != -100).sum(0).cpu()
    model.train(training)
    return by_horizon(loss, hits, count)


def evaluate_lengths(
    model: SMTForCausalLM, task: Any, lengths: Iterable[int], max_targets: int = 65536
) -> dict[int, dict[str, Any]]:
    """Free-running, cold-start metrics (`evaluate_rows`) of a task or of images at each of `lengths`.

    Rows are the task's own, in order: at least one, and as many as have at most `max_targets` answers
    together. All lengths are made before anything is measured, so an impossible one raises at once.
    """
    tasks = {length: task.at_length(length) for length in lengths}
    return {
        length: evaluate_batches(model, first_batches(rows, max_targets), length)
        for length, rows in tasks.items()
    }


def first_batches(rows: Any, max_targets: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of the first rows, as many as have at most `max_targets` answers together, and at least one row.

    They are made as they are asked for: a thousand rows of four thousand tokens are never there at once.
    """
    total, size = 0, min(len(rows), max_targets)
    for start in range(0, size, BATCH):
        batch = rows.__getitems__(range(start, min(start + BATCH, size)))
        answers = total + (batch["shift_labels"] != -100).sum(1).cumsum(0)
        total, count = int(answers[-1]), int((answers <= max_targets).sum())
        if start == 0:
            count = max(1, count)
        if count:
            yield batch["input_ids"][:count], batch["shift_labels"][:count]
        if count < len(answers):
            return


@torch.no_grad()
def drift(
    model: SMTForCausalLM, teacher, input_ids: torch.Tensor, timesteps: list[int]
) -> list[dict[str, float]]:
    """Mean squared difference of free-running and teacher memory at each of `timesteps`, rows (B, T).

    0 means that the RNN is where the teacher would be, and 2 that the memories are unrelated.
    """
    labels = teacher.encode(input_ids, timesteps)
    core = model.model
    memory = core.start_memory(len(input_ids))
    wanted = {t: i for i, t in enumerate(timesteps)}
    out = []
    for start, part in enumerate(input_ids[:, : max(timesteps) + 1].split(CHUNK, dim=1)):
        inputs = core.cell.project_inputs(core.embed_tokens(part))
        for t, x in enumerate(inputs.unbind(1), start=start * CHUNK):
            memory = core.cell(memory, x)
            if t in wanted:
                out.append({"horizon": t + 1, "drift": F.mse_loss(memory, labels[:, wanted[t]]).item()})
    return out


def doubling_timesteps(length: int) -> list[int]:
    """Timesteps after 1, 2, 4, … tokens, up to `length` tokens."""
    return [2**i - 1 for i in range(length.bit_length()) if 2**i <= length]
