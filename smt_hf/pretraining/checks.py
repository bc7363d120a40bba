"""What must hold between model, teacher, arguments and data; checked before any work is done."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, broadcast_object_list

from smt_hf.data.dataset import SequenceDataset
from smt_hf.hub.push import check_access
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.runs.arguments import WITH_TRUNK, SMTPretrainingArguments
from smt_hf.runs.folder import Claim, RunFolder
from smt_hf.runs.record import RunRecord

from .schedule import Phase
from .soft_targets import SoftTargets
from .teacher import SMTTeacher

# The readout is the teacher's decoder, and memories are exchanged, so these must be equal.
SHARED = "vocab_size hidden_size num_memory_tokens num_readout_layers num_attention_heads intermediate_size"
# Set by a launch or a plugin that asks for sharding. Accelerate overlooks it on a CPU, so this does not.
SHARDING = tuple(
    f"ACCELERATE_USE_{name}" for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
)


def trackers_of(args: SMTPretrainingArguments) -> list[str] | None:
    """What Accelerate logs with. Raises ValueError for a tracker that it does not know, or cannot import.

    By itself it warns and goes on without.
    """
    known, here = (
        sorted(set(LoggerType.list()) - {LoggerType.ALL.value}),
        {str(t) for t in get_available_trackers()},
    )
    for name in args.trackers:
        if name not in known:
            raise ValueError(f"report_to names {name!r}; it must be none, or some of {', '.join(known)}.")
        if name not in here:
            raise ValueError(f"report_to names {name!r}, which is not installed; run: pip install {name}.")
    return args.trackers or None


def accelerator_for(args: SMTPretrainingArguments) -> Accelerator:
    """What moves the work to devices and processes.

    Raises ValueError for a way to share out the work that training cannot do.
    """
    for name in SHARDING:
        if os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off"):
            raise ValueError(
                f"{name} is {os.environ[name]}, and pretraining needs whole weights on every device; start it "
                f"with torchrun alone, or with accelerate launch --multi_gpu."
            )
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else processes under torchrun do not find one another
        mixed_precision=args.mixed_precision,
        dynamo_backend="inductor" if args.torch_compile else "no",
        log_with=trackers_of(args),
        project_dir=args.output_dir,
    )
    if args.batch_size % (args.gradient_accumulation_steps * accelerator.num_processes):
        raise ValueError(
            f"batch_size {args.batch_size} does not divide over {accelerator.num_processes} processes."
        )
    return accelerator


def check_consistency(
    model: SMTForCausalLM,
    teacher: SMTTeacher | None,
    args: SMTPretrainingArguments,
    train_dataset: SequenceDataset,
    full_length: int,
    soft_targets: SoftTargets | None = None,
) -> None:
    """Raise a ValueError that names the value and what would be right, or return."""
    config = model.config
    vocab = train_dataset.vocab_size
    if vocab > config.vocab_size:
        raise ValueError(
            f"the data has token ids up to {vocab - 1} but the model's vocab_size is {config.vocab_size}; "
            f"set vocab_size to at least {vocab}."
        )
    if args.curriculum_start_length:  # raises now if the data cannot be that short
        try:
            train_dataset.at_length(min(args.curriculum_start_length, full_length))
        except ValueError as error:
            raise ValueError(f"curriculum_start_length is {args.curriculum_start_length}: {error}") from None
    given = None
    if args.method == "smt" and teacher is not None and teacher.config.encoder_type == "given":
        given = teacher.given_model()
    for reads in dict.fromkeys((soft_targets, given)):
        if reads is not None:
            reads.check(train_dataset[0]["input_ids"])
    if args.method == "bptt":
        return
    if teacher is None:
        raise ValueError("method 'smt' needs a teacher; pass SMTTeacher(SMTTeacherConfig(...)).")
    if config.tie_word_embeddings:
        raise ValueError(
            "tie_word_embeddings is True; SMT hands the teacher's head over to the model, so train it with "
            "tie_word_embeddings=False, or by method 'bptt'."
        )
    for name in SHARED.split():
        ours, theirs = getattr(config, name), getattr(teacher.config, name)
        if ours != theirs:
            raise ValueError(f"{name} is {ours} in the model but {theirs} in the teacher; make them equal.")
    if args.trunk_fraction and teacher.config.encoder_type not in WITH_TRUNK:
        raise ValueError(
            f"trunk_fraction is {args.trunk_fraction:g}, and a {teacher.config.encoder_type} encoder has no "
            f"trunk that learns; make it 0, or the encoder causal or projected."
        )
    context = min(full_length, teacher.config.context_length)
    if args.dmt_fraction and context < 2:
        raise ValueError(
            f"context_length is {context}, which leaves no room for a rollout; make it at least 2, or "
            f"dmt_fraction 0."
        )
    if args.dmt_fraction and args.rollout_length >= context:
        raise ValueError(
            f"rollout_length {args.rollout_length} does not fit into a context of {context} tokens; "
            f"use at most {context - 1}."
        )


def index_of(state: dict[str, Any], phases: list[Phase], checkpoint: Path) -> int:
    """The number of the phase that a checkpoint is in. Raises ValueError if the run has none of its name."""
    names = [phase.name for phase in phases]
    if "phase" not in state:  # smt-hf 0.1
        return state["phase_index"]
    if state["phase"] not in names:
        raise ValueError(
            f"{checkpoint} is in phase {state['phase']!r}, and this run has {', '.join(names)}; go on with the "
            f"version that wrote it."
        )
    return names.index(state["phase"])


def check_phase(phases: list[Phase], saved: int, progress: float, args: SMTPretrainingArguments) -> None:
    """Raise a ValueError if a checkpoint is of a later phase than is due: with a longer budget, which moves it.

    saved: the number of its phase. All that follows is a function of seed, step and budget, and no phase can be
    gone back to: DMT has changed what SMT would train on.
    """
    due = next((number for number, phase in enumerate(phases) if progress < phase.end), saved)
    if due >= saved:
        return
    phase = phases[saved]
    name = "max_minutes" if args.max_steps is None else "max_steps"
    budget = getattr(args, name)
    most = math.floor(budget * progress / phase.start * 1000 + 1e-6) / 1000
    most = most if args.max_steps is None else int(most)
    raise ValueError(
        f"{name} is {budget:g}, of which {phase.name} gets the part from {phase.start:.0%} on, but the run is "
        f"in {phase.name} at {progress:.0%} of it; it can be at most {most:g}."
    )


def claim(
    accelerator: Accelerator,
    folder: RunFolder,
    record: RunRecord,
    config: dict[str, Any],
    args: SMTPretrainingArguments,
    resume: bool,
) -> Claim:
    """The main process checks that a push will be welcome and claims the folder; all hear what came of it.

    config: of the model, whole.
    Raises on every process what `check_access` and `RunFolder.claim` do.
    """
    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            if args.push_to_hub and args.hub_model_id:
                check_access(config, args.hub_model_id, args.hub_private_repo)
            answer = [folder.claim(record, resume)]
        except (ValueError, OSError) as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]
