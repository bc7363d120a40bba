"""Whole training steps to be timed: SMT and BPTT by context length, and DMT beside the official algorithm.

B rows, T tokens, R tokens of a rollout. Random weights and random tokens: a step costs the same.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.pretraining.assembly import model_config, teacher_of
from smt_hf.pretraining.objectives import cross_entropy
from smt_hf.pretraining.phases import PHASES, Objective
from smt_hf.runs.environment import default_device
from smt_hf.runs.spec import RunSpec

from .measure import interleave, rate, seconds_of

VOCAB = 258
# Of the official code: a label for every 16th timestep of a rollout, each by an encoding of its own.
LABEL_EVERY = 16


class Step(NamedTuple):
    """One training step, forward to optimizer. sequential: cell applications that wait for one another."""

    model: str
    method: str
    parameters: int
    context: int
    tokens: int
    sequential: int
    run: Callable[[], Any]


def build(cell: str, preset: str, encoder_type: str | None, context: int) -> Objective:
    """Model and teacher of a preset, on the accelerator if there is one. encoder_type: None for its own."""
    given = {} if encoder_type is None else {"encoder_type": encoder_type}
    spec = RunSpec.of(preset=preset, cell=cell, max_steps=1, output_dir="unused", **given)
    torch.manual_seed(0)
    model = SMTForCausalLM(model_config(spec, VOCAB))
    lengths = {"context_length": context, "future_length": spec.future_length}
    teacher = teacher_of(spec, None, VOCAB, **lengths)
    return Objective(model, teacher, spec).to(default_device())


def optimized(
    objective: Objective, phase: str, loss: Callable[[], torch.Tensor], dtype: torch.dtype
) -> Callable[[], None]:
    """A step that computes `loss` and moves what the phase trains.

    dtype: of the products; weights are float32, as under `--mixed-precision bf16`.
    """
    trained = []
    for name, parameter in objective.named_parameters():
        parameter.requires_grad_(name.startswith(PHASES[phase].trains))
        if parameter.requires_grad:
            trained.append(parameter)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    half = torch.autocast(objective.model.device.type, dtype, enabled=dtype != torch.float32)

    def run() -> None:
        with half:
            found = loss()
        found.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def random_batch(objective: Objective, rows: int, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCAB, (rows, length + 1), generator=generator).to(objective.model.device)
    return {"input_ids": ids[:, :-1], "shift_labels": ids[:, 1:]}


def smt_and_bptt_steps(
    cell: str, preset: str, contexts: list[int], tokens: int, dtype: torch.dtype = torch.float32
) -> Iterator[Step]:
    """SMT and BPTT on `tokens` tokens, in rows of each of `contexts`.

    SMT has as many labels a row as a run of the preset, near the end of the context, where they cost most.
    """
    for context in contexts:
        rows = max(1, tokens // context)
        for method in ("smt", "bptt"):
            objective = build(cell, preset, None, context)
            labels = objective.args.num_labels
            batch = random_batch(objective, rows, context)
            draws = {"timestep": context - labels - 1, "num_labels": labels} if method == "smt" else {}

            def loss(objective=objective, method=method, batch=batch, draws=draws) -> torch.Tensor:
                return objective(method, batch, **draws)[0]

            yield Step(
                f"smt-{cell}", method, objective.model.num_parameters(), context, rows * context,
                1 if method == "smt" else context, optimized(objective, method, loss, dtype),
            )  # fmt: skip


def dmt_steps(
    cell: str, preset: str, rows: int, rollout: int, sweeps: list[int], dtype: torch.dtype = torch.float32
) -> Iterator[Step]:
    """DMT over a rollout after a full context: ours, sequential and by sweeps, and the official algorithm."""
    ways = [(number, every) for number in (0, *sweeps) for every in (1, LABEL_EVERY)]
    for num_sweeps, every in ways:
        # Labels from before the first to after the last token of the rollout, all within the trunk's reach.
        objective = build(cell, preset, "causal", 2 * rollout)
        batch = random_batch(objective, rows, 2 * rollout)
        draws = {
            "start": rollout - 1,
            "rollout_length": rollout,
            "num_sweeps": num_sweeps,
            "label_every": every,
        }

        def loss(objective=objective, batch=batch, draws=draws) -> torch.Tensor:
            return objective("dmt", batch, **draws)[0]

        yield Step(
            f"smt-{cell}",
            f"dmt, {num_sweeps} sweeps, label every {every}" if num_sweeps else f"dmt, label every {every}",
            objective.model.num_parameters(), rollout, rows * rollout,
            1 + (num_sweeps or rollout - 1), optimized(objective, "dmt", loss, dtype),
        )  # fmt: skip
    objective = build(cell, preset, "bidirectional", rollout)
    batch = random_batch(objective, rows, 2 * rollout)
    yield Step(
        f"smt-{cell}", "dmt, official algorithm", objective.model.num_parameters(), rollout, rows * rollout,
        rollout, optimized(objective, "dmt", lambda: official_dmt_loss(objective, batch, rollout), dtype),
    )  # fmt: skip


def official_dmt_loss(objective: Objective, batch: dict[str, torch.Tensor], rollout: int) -> torch.Tensor:
    """DMT as the official code has it, written plainly: what ours is measured against, not a way to train.

    The cell runs in a loop with its graph kept; at every 16th timestep the bidirectional encoder reads the
    window before it anew for a label, and the readout is judged there.
    """
    model, teacher = objective.model, objective.teacher
    assert teacher is not None
    x, y = batch["input_ids"], batch["shift_labels"]
    core = model.model
    with torch.no_grad():
        memory = teacher.encode(x[:, :rollout], [rollout - 1])[:, 0]
    inputs = core.cell.project_inputs(core.embed_tokens(x[:, rollout:]))
    losses = []
    for step, token in enumerate(inputs.unbind(1)):
        memory = core.cell(memory, token)
        if (step + 1) % LABEL_EVERY == 0:
            with torch.no_grad():
                label = teacher.encode(x, [rollout + step])[:, 0]
            logits = model.lm_head(core.read_out(memory.detach()))
            losses.append(10 * F.mse_loss(memory, label) + cross_entropy(logits, y[:, rollout + step]))
    return torch.stack(losses).mean()


def measure_steps(steps: list[Step], repeats: int) -> list[dict[str, Any]]:
    """One row a step. sequential_steps: cell applications that wait for one another."""
    timed = interleave([functools.partial(seconds_of, step.run) for step in steps], repeats)
    return [
        {
            "model": step.model, "method": step.method, "parameters": step.parameters,
            "context": step.context, "tokens": step.tokens, **rate(step.tokens, seconds),
            "sequential_steps": step.sequential,
        }
        for step, seconds in zip(steps, timed, strict=True)
    ]  # fmt: skip
