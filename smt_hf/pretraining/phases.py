"""The phases of a run, one row each. A new phase is one row: nothing else asks for a phase by its name."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.runs.arguments import SMTPretrainingArguments

from . import objectives
from .schedule import Phase, draw_start, draw_timestep
from .soft_targets import SoftTargets
from .stored_targets import IDS, LOGPROBS, spread
from .teacher import SMTTeacher, hand_over

Args = SMTPretrainingArguments
Draws = tuple[dict[str, int], int]


class Moment(NamedTuple):
    """What the draws of a step depend on. length: of its rows, full_length without a curriculum;
    context_length: what the teacher reads; prompt_length: tokens before the first target."""

    step: int
    length: int
    full_length: int
    context_length: int
    prompt_length: int = 0


@dataclass(frozen=True)
class PhaseRow:
    """loss: (model, teacher, batch, args, **draws) → (loss, its parts). trains: prefixes of the parameters of
    `Objective` that it trains. draws: (moment, args) → the random choices of a step, the same on every process,
    and its sequential depth: how many applications of the cell wait for one another.
    share: (args) → its part of the budget. learning_rate: (args) → its peak.
    needs_teacher: whether it is left out of a run without one. may_grow: whether it may follow the length
    curriculum, which the first such phase of a run does.
    heeds_soft_targets: whether its loss has a part for what a given model says.
    at_end, before_evaluation: (teacher, model) → what happens then.
    """

    loss: Callable[..., Any]
    trains: tuple[str, ...]
    draws: Callable[[Moment, Args], Draws]
    share: Callable[[Args], float]
    learning_rate: Callable[[Args], float]
    needs_teacher: bool = True
    may_grow: bool = True
    heeds_soft_targets: bool = True
    at_end: Callable[..., None] | None = None
    before_evaluation: Callable[..., None] | None = None


def draws_of_smt(moment: Moment, args: Args) -> Draws:
    """Under a length curriculum batches have more rows, so rows have fewer labels: as many per step."""
    rng = random.Random(f"{args.seed}-{moment.step}")
    context = min(moment.length, moment.context_length)
    num_labels = max(2, args.num_labels * moment.length // moment.full_length)
    labels = {"timestep": draw_timestep(rng, context), "num_labels": num_labels}
    if rng.random() < args.prompt_fraction:
        labels["predict_from"] = min(moment.prompt_length, context) - 1
    return labels, 1


def draws_of_dmt(moment: Moment, args: Args) -> Draws:
    """The depth is that of the rollout to the last stretch, and that of the gradient pass."""
    rng = random.Random(f"{args.seed}-{moment.step}")
    k = args.dmt_gradient_steps
    choices = {
        "start": draw_start(rng, min(moment.length, moment.context_length), args),
        "rollout_length": args.rollout_length,
        "num_sweeps": args.num_sweeps,
        "label_every": args.dmt_label_every,
        "gradient_steps": k,
        "offset": rng.randrange(max(args.dmt_label_every, k) - k + 1),
    }
    longest = args.rollout_length - k
    return choices, k + (min(args.num_sweeps, longest) if args.num_sweeps else longest)


def draws_of_bptt(moment: Moment, args: Args) -> Draws:
    return {}, moment.length


PHASES: dict[str, PhaseRow] = {
    "trunk": PhaseRow(
        loss=lambda model, teacher, batch, args, **draws: objectives.trunk_loss(teacher, batch),
        trains=(
            *("teacher.embed_tokens.", "teacher.convolution.", "teacher.encoder."),
            *("teacher.readout.norm.", "teacher.lm_head."),
        ),
        draws=lambda moment, args: ({}, 1),
        share=lambda args: args.trunk_fraction,
        learning_rate=lambda args: args.learning_rate,
        may_grow=False,
        heeds_soft_targets=False,
    ),
    "smt": PhaseRow(
        loss=lambda model, teacher, batch, args, **draws: objectives.smt_loss(
            model, teacher, batch, **{**args.smt_options, **draws}
        ),
        trains=("teacher.", "model.model.embed_tokens.", "model.model.cell."),
        draws=draws_of_smt,
        share=lambda args: 1 - args.share_beside_smt,
        learning_rate=lambda args: args.learning_rate,
        # The model's readout and m_∅ are the teacher's.
        at_end=hand_over,
        before_evaluation=hand_over,
    ),
    "dmt": PhaseRow(
        loss=lambda model, teacher, batch, args, **draws: objectives.dmt_loss(
            model,
            teacher,
            batch,
            imitation_weight=args.dmt_imitation_weight,
            teacher_weight=args.teacher_weight,
            **draws,
        ),
        trains=("model.model.embed_tokens.", "model.model.cell.", "model.model.readout.", "model.lm_head."),
        draws=draws_of_dmt,
        share=lambda args: args.dmt_fraction,
        learning_rate=lambda args: args.dmt_learning_rate,
        may_grow=False,
    ),
    # m_∅ is the encoder's answer until BPTT, which asks no teacher and learns it too.
    "bptt": PhaseRow(
        loss=lambda model, teacher, batch, args, **draws: objectives.bptt_loss(
            model, batch, args.teacher_weight
        ),
        trains=("model.",),
        draws=draws_of_bptt,
        share=lambda args: args.bptt_fraction if args.method == "smt" else 1.0,
        learning_rate=lambda args: args.bptt_learning_rate if args.method == "smt" else args.learning_rate,
        needs_teacher=False,
    ),
}


def phases_of(args: Args) -> list[Phase]:
    """The phases of a run, one after another, each with its stretch of the budget."""
    rows = {name: row for name, row in PHASES.items() if args.method == "smt" or not row.needs_teacher}
    found: list[Phase] = []
    start = 0.0
    for name, row in rows.items():
        share = row.share(args)
        if share > 1e-9:  # fractions are rounded
            grows = row.may_grow and not any(phase.grows for phase in found)
            # Sums are rounded, or a phase would go on for a step where its end lies a hair behind one.
            end = round(start + share, 9)
            found.append(Phase(name, start, end, row.learning_rate(args), grows))
            start = end
    last = found.pop()
    return [*found, last._replace(end=1.0)]  # not a rounded sum, which a run might never reach


def draws(phase: Phase, moment: Moment, args: Args) -> Draws:
    """The random choices of a step, the same on every process, and its sequential depth."""
    return PHASES[phase.name].draws(moment, args)


class Objective(nn.Module):
    """The losses as one module's forward, which is what DDP and torch.compile need to see."""

    def __init__(
        self,
        model: SMTForCausalLM,
        teacher: SMTTeacher | None,
        args: Args,
        soft_targets: SoftTargets | None = None,
    ):
        super().__init__()
        self.model, self.teacher, self.args, self.soft_targets = model, teacher, args, soft_targets

    def forward(self, phase: str, batch: dict[str, Any], **draws):
        row = PHASES[phase]
        if row.heeds_soft_targets:
            batch = {**batch, **self._said_of(batch, row.needs_teacher)}
        return row.loss(self.model, self.teacher, batch, self.args, **draws)

    def _said_of(self, batch: dict[str, Any], needs_teacher: bool) -> dict[str, Any]:
        """What the given model says of a batch, if it is asked; its states too, where they make labels."""
        if IDS in batch:
            return {"soft_targets": spread(batch[IDS], batch[LOGPROBS], self.model.config.vocab_size)}
        if self.soft_targets is None or not self.args.teacher_weight:
            return {}
        if needs_teacher and self.teacher is not None and self.teacher.given is self.soft_targets:
            said, states = self.soft_targets.with_states(batch["input_ids"])
            return {"soft_targets": said, "hidden_states": states}
        return {"soft_targets": self.soft_targets(batch["input_ids"])}
