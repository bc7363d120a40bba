"""What is done after the last step: the final evaluation, the model, its samples, its card, its upload.

Each part is marked in the record when it is done: a run that was stopped or killed in the middle goes on with
what is left.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smt_hf.hub.card import write_card
from smt_hf.hub.push import push
from smt_hf.runs.files import files_for

from .samples import texts_for_card

if TYPE_CHECKING:
    from .trainer import SMTPretrainer

PUSH = "push"
COSTS = ("seconds", "tokens", "sequential_steps")


def judge(trainer: "SMTPretrainer") -> None:
    trainer.record.final = trainer.evaluate(trainer.phases[-1])


def write_model(trainer: "SMTPretrainer") -> None:
    if trainer.accelerator.is_main_process:
        save_model(trainer.folder.path, trainer.model, trainer.processing_class, trainer.teacher)


def sample(trainer: "SMTPretrainer") -> None:
    if trainer.accelerator.is_main_process:
        texts = texts_for_card(trainer.model, trainer.processing_class, trainer.eval_dataset)
        trainer.record.prompt, trainer.record.samples = texts["prompt"], texts["samples"]


def describe(trainer: "SMTPretrainer") -> None:
    if trainer.accelerator.is_main_process:
        write_card(trainer.folder.path, trainer.record)


PARTS: dict[str, Callable[["SMTPretrainer"], None]] = {
    "evaluation": judge,
    "model": write_model,
    "texts": sample,
    "card": describe,
}


def finish(trainer: "SMTPretrainer") -> None:
    """Do what is left of `PARTS`, then call the run finished, then upload it if it was asked for.

    Raises Interrupted between two parts, and at once in the upload; OSError for an upload that failed. Only a
    finished run is pushed, so the run is finished by then, and resumed it is no more than uploaded.
    """
    record, folder, args = trainer.record, trainer.folder, trainer.args
    main = trainer.accelerator.is_main_process
    if not record.finished:
        record.steps = trainer.step
        for name in COSTS:
            setattr(record, name, getattr(trainer, name))
        for name, work in PARTS.items():
            if name not in record.finishing:
                trainer.agree()
                trainer.stop_if_agreed()
                work(trainer)
                record.finishing.append(name)
                if main:
                    record.write(folder.path)
        trainer.agree()
        trainer.stop_if_agreed()
        record.status = "finished"
        if main:
            record.write(folder.path)
            folder.drop_checkpoints(record)
    if main and args.push_to_hub and args.hub_model_id and PUSH not in record.finishing:
        try:
            with trainer.signals.at_once(folder.path):
                push(folder.path, args.hub_model_id, private=args.hub_private_repo)
        except (ValueError, OSError) as error:
            again = shlex.join(["smt-hf", "push", str(folder.path), "--repo-id", args.hub_model_id])
            raise OSError(
                f"the run in {folder.path} is finished, but its upload failed: {error} To upload it, resume "
                f"it with --resume, or give {again}."
            ) from error
        record.finishing.append(PUSH)
        record.write(folder.path)


def save_model(folder: Path, model: Any, tokenizer: Any, teacher: Any) -> None:
    """Write what `from_pretrained` reads, and the teacher beside it; each file is whole or absent."""
    with files_for(folder) as part:
        model.save_pretrained(part)
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        if teacher is not None:
            teacher.save_pretrained(part / "teacher")
