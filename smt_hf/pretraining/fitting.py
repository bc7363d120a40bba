"""Sizes and lengths of a preset that give way to the data, to the cell and to what was given.

What was given stays as it is; where it contradicts itself it is refused here, or by what it does not fit.
"""

import logging

from smt_hf.data import DataSplits, TokenWindows, data_kind
from smt_hf.data.tasks import make_task
from smt_hf.models.cell_base import StackedCell
from smt_hf.models.cells import CELLS
from smt_hf.runs.arguments import BESIDE_SMT, ROLLOUT_PARTS, WEIGHTS, shares
from smt_hf.runs.spec import RunSpec

from .phases import phases_of

LONGEST_TASK = 4096  # tokens, where the user gives no length

# What one phase, or one setting, alone makes use of.
OF_SMT = (*WEIGHTS, "num_labels", "detach_labels", "prompt_fraction", "num_encoder_layers", "encoder_type")
OF_DMT = (
    *("dmt_learning_rate", "dmt_imitation_weight", "rollout_length", *ROLLOUT_PARTS),
    *("num_sweeps", "cold_start_fraction"),
)

logger = logging.getLogger(__name__)


def with_memory_for_layers(spec: RunSpec) -> RunSpec:
    """A stacked cell shares its memory tokens out over its layers: enough of them for those that were given."""
    cell, tokens = CELLS.get(spec.cell), spec.num_memory_tokens
    if cell is None or not issubclass(cell, StackedCell) or tokens is None or "num_memory_tokens" in spec.given:
        return spec
    parts = (spec.num_hidden_layers or 1) * cell.states_per_layer
    return spec.changed(num_memory_tokens=-(-tokens // parts) * parts)


def with_lengths(spec: RunSpec) -> tuple[RunSpec, int | None, dict[str, int]]:
    """(the description, tokens of a row, what the teacher reads and predicts: context_length, future_length).

    The tokens are None for images, before they are read. A task is read whole and predicted to its end; a text
    is a context and the future after it.
    """
    context, future = spec.context_length, spec.future_length
    if context is None or future is None:
        raise ValueError("context_length and future_length are missing; take them from a preset.")
    rollout = longest_asked_for(spec)
    if "context_length" not in spec.given and spec.sequence_length is None and context <= rollout:
        spec, context = spec.changed(context_length=rollout + 1), rollout + 1
    kind = data_kind(spec.dataset, spec.image_column)
    length = spec.sequence_length
    if kind == "image":
        return spec, length, {"context_length": context, "future_length": future}
    if kind == "task":
        spec, length = with_length_of_task(spec, length or context)
        lengths = {
            "context_length": length,
            "future_length": future if "future_length" in spec.given else length,
        }
        return spec, length, lengths
    if length is None:
        return spec, context + future, {"context_length": context, "future_length": future}
    if "future_length" not in spec.given:
        future = max(1, min(future, length // 2, length - rollout - 1))
        spec = spec.changed(future_length=future)
    room = length - future
    if spec.method == "smt" and room < 2:
        shorter = ", or future_length shorter" if "future_length" in spec.given else ""
        raise ValueError(
            f"sequence_length {length} leaves no context of 2 tokens before a future of {future}; make it "
            f"longer{shorter}."
        )
    context = context if "context_length" in spec.given else room
    return spec, length, {"context_length": context, "future_length": future}


def longest_asked_for(spec: RunSpec) -> int:
    """The rollout that was given, or that is as long as labels are apart by what was given; else 1."""
    names = {"rollout_length", *ROLLOUT_PARTS} & spec.given if rolls_out(spec) else set()
    return max([1, *(getattr(spec, name) for name in names)])


def rolls_out(spec: RunSpec) -> bool:
    return spec.method == "smt" and spec.dmt_fraction > 0


def learns_trunk(spec: RunSpec) -> bool:
    return spec.method == "smt" and spec.trunk_fraction > 0


def trains_teacher(spec: RunSpec) -> bool:
    return any(phase.name == "smt" for phase in phases_of(spec))


def refuse_other_context(spec: RunSpec, length: int) -> None:
    """Raise ValueError for a context that was given and not heeded: tasks and images are read whole."""
    if spec.method == "smt" and "context_length" in spec.given and spec.context_length != length:
        raise ValueError(
            f"context_length is {spec.context_length}, but {spec.dataset!r} is read whole, {length} tokens; "
            f"leave it out."
        )


def with_length_of_task(spec: RunSpec, length: int) -> tuple[RunSpec, int]:
    """The length of a task's rows: as long as its sizes need where none was given."""
    refuse_other_context(spec, length)
    if "sequence_length" not in spec.given and "context_length" in spec.given:
        try:
            make_task(spec.dataset, length)
        except ValueError as error:
            raise ValueError(f"context_length {length} is the length of the task's rows: {error}") from None
    if {"context_length", "sequence_length"} & spec.given:
        return spec, length
    fits = length
    while fits <= LONGEST_TASK:
        try:
            make_task(spec.dataset, fits)
        except ValueError:
            fits *= 2
            continue
        return (spec if fits == length else spec.changed(context_length=fits)), fits
    return spec, length  # to be refused where the data are made


def with_room_for_rollouts(spec: RunSpec, context: int) -> RunSpec:
    """Shorten the preset's rollout to the context. A rollout that was given stays as it is, to be refused."""
    longest = context - 1
    for name in spec.given.intersection(ROLLOUT_PARTS) if rolls_out(spec) else ():
        if (steps := getattr(spec, name)) > longest:
            raise ValueError(
                f"{name} {steps} does not fit into a context of {context} tokens; use at most {longest}."
            )
    if "rollout_length" in spec.given or not rolls_out(spec) or not 1 <= longest < spec.rollout_length:
        return spec
    shorter = {name: min(getattr(spec, name), longest) for name in ROLLOUT_PARTS if name not in spec.given}
    return spec.changed(rollout_length=longest, **shorter)


def with_horizon_of_text(spec: RunSpec, data: DataSplits) -> RunSpec:
    """Evaluations read no more than there is: a short text has no block of the preset's horizon."""
    text = data.validation
    if "eval_horizon" in spec.given or not isinstance(text, TokenWindows):
        return spec
    return spec.changed(eval_horizon=min(spec.eval_horizon, text.num_tokens - 1))


def refuse_what_cannot_teach(spec: RunSpec) -> None:
    """Raise ValueError for settings that would teach nothing: without a prompt, or without learned labels."""
    kind = data_kind(spec.dataset, spec.image_column)
    if spec.method == "smt" and spec.prompt_fraction and kind != "task":
        raise ValueError(
            f"prompt_fraction is {spec.prompt_fraction:g}, and {spec.dataset!r} has no prompts, as tasks have; "
            f"make it 0."
        )
    if (rolls_out(spec) or learns_trunk(spec)) and not trains_teacher(spec):
        raise ValueError(
            f"beside {shares(spec)} SMT has no time to teach the teacher; make their sum less than 1."
        )


def refuse_longer_than_rows(spec: RunSpec, length: int, context: int) -> None:
    """Raise ValueError for a size that was given and is longer than the rows, of which a part would be used."""
    rows = f"rows of {length} tokens"
    most = {
        "context_length": (rows, length),
        "future_length": (rows, length),
        "num_labels": (f"a context of {context} tokens", context + 1),
    }
    for name in sorted(spec.given.intersection(most)) if spec.method == "smt" else ():
        (place, longest), size = most[name], getattr(spec, name)
        if size > longest:
            raise ValueError(f"{name} {size} does not fit into {place}; use at most {longest}.")


def unused(spec: RunSpec, length: int | None = None) -> dict[str, list[str]]:
    """What was given and this run has no use for, by the reason: {"method is bptt": ["num_labels"]}.

    length: of its rows, where that is known.
    """
    bptt, kind = spec.method == "bptt", data_kind(spec.dataset, spec.image_column)
    start = spec.curriculum_start_length
    rules: list[tuple[bool, str, tuple[str, ...]]] = [
        (bptt, "method is bptt", (*OF_SMT, *OF_DMT, *BESIDE_SMT, "bptt_learning_rate")),
        (bptt and spec.sequence_length is not None, "method is bptt", ("context_length", "future_length")),
        (bptt and kind == "image", "method is bptt", ("context_length",)),
        (bptt and kind != "text", "method is bptt", ("future_length",)),
        (not bptt and not trains_teacher(spec), "bptt_fraction is 1", (*OF_SMT, "learning_rate")),
        (spec.dmt_fraction == 0, "dmt_fraction is 0", OF_DMT),
        (spec.bptt_fraction == 0, "bptt_fraction is 0", ("bptt_learning_rate",)),
        (spec.encoder_type == "bidirectional", "encoder_type is bidirectional", ("trunk_weight",)),
        (spec.encoder_type == "given", "encoder_type is given", ("trunk_weight", "num_encoder_layers")),
        (spec.teacher is None, "there is no teacher", ("teacher_weight", "teacher_embeddings")),
        (spec.teacher_weight == 0, "teacher_weight is 0", ("teacher_top",)),
        (
            spec.teacher_weight == 0 and not spec.teacher_embeddings
            and (spec.encoder_type != "given" or bptt or not trains_teacher(spec)),
            "teacher_weight is 0 (but for its tokenizer)", ("teacher",),
        ),
        (not start, "there is no curriculum_start_length", ("curriculum_fraction",)),
        (spec.curriculum_fraction == 0, "curriculum_fraction is 0", ("curriculum_start_length",)),
        (
            bool(start and length and start >= length), f"rows have {length} tokens",
            ("curriculum_start_length", "curriculum_fraction"),
        ),
        (kind != "text", f"{spec.dataset} is no text", ("eval_horizon",)),
        (spec.checkpoint_every == 0, "checkpoint_every is 0", ("save_total_limit",)),
        (not spec.push_to_hub, "push_to_hub is off", ("hub_private_repo",)),
    ]  # fmt: skip
    found: dict[str, list[str]] = {}
    said: set[str] = set()
    for holds, reason, names in rules:
        if holds and (now := sorted(spec.given.intersection(names) - said)):
            found.setdefault(reason, []).extend(now)
            said.update(now)
    return found


def tell(spec: RunSpec, data: DataSplits, length: int) -> None:
    """Say, in one line each, which values of the preset have given way, and which given ones have no use.

    length: of a training row.
    """
    if spec.gave_way:
        told = ", ".join(f"{name} {getattr(spec, name)} (not {old})" for name, old in spec.gave_way.items())
        logger.warning("to fit what was given and the data: %s.", told)
    if no_use := unused(spec, length):
        told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in no_use.items())
        logger.warning("this run has no use for what was given as %s.", told)
    if "eval_sequences" in spec.given:
        there = len(data.validation.evaluation_rows(spec.eval_sequences, spec.eval_horizon)[0])
        if there < spec.eval_sequences:
            logger.warning("eval_sequences is %d, and the data have %d.", spec.eval_sequences, there)
