"""SMTPretrainer: one Accelerate loop, three objectives (SMT, DMT, and BPTT as the baseline).

SMT trains teacher and cell on single transitions; after `hand_over`, DMT trains cell and readout on policy, and
BPTT, if it has a share of the budget, the whole model without its teacher."""

import math
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from tqdm.auto import tqdm

from smt_hf.data.dataset import as_sequence_dataset, prompt_length
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.runs import checkpoints
from smt_hf.runs.arguments import SMTPretrainingArguments
from smt_hf.runs.folder import RunFolder
from smt_hf.runs.record import RunRecord, new_record

from . import schedule
from .batching import batches_at_length
from .checks import accelerator_for, check_consistency, check_phase, claim, index_of
from .finishing import finish
from .phases import PHASES, Moment, Objective, draws, phases_of
from .soft_targets import SoftTargets
from .stops import Interrupted, StopSignals, agree, check_finite, leave
from .teacher import SMTTeacher
from .validation import validate

# How far a run has come: with the seed, all the state there is beside weights and optimizer.
COUNTERS = ("step", "seconds", "agreed_seconds", "tokens", "sequential_steps")
AGREE_EVERY = 10  # steps


class SMTPretrainer:
    """Pretrain `model`, in the manner of `transformers.Trainer`.

    Args:
        model: what is trained, and evaluated free-running.
        teacher: needed by method "smt", not used by "bptt".
        args: see `SMTPretrainingArguments`.
        train_dataset, eval_dataset: map-style, rows {"input_ids" (T,), "shift_labels" (T,)} of equal length T.
            A length curriculum also needs `at_length(n)`.
        processing_class: tokenizer, saved with the model.
        known: fields of the `RunRecord` that the caller knows better (command, data_fingerprint …).
        soft_targets: a given model whose distribution takes `args.teacher_weight` of the readout's loss.
    """

    def __init__(
        self,
        model: SMTForCausalLM,
        teacher: SMTTeacher | None,
        args: SMTPretrainingArguments,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        known: dict[str, Any] | None = None,
        soft_targets: SoftTargets | None = None,
    ):
        self.model, self.teacher, self.args = model, teacher if args.method == "smt" else None, args
        self.train_dataset = as_sequence_dataset(train_dataset, model.config.vocab_size)
        self.eval_dataset = None
        if eval_dataset is not None:  # raises now, not after the first minutes, if it is too short
            self.eval_dataset = as_sequence_dataset(eval_dataset, model.config.vocab_size)
            self.eval_dataset.evaluation_rows(args.eval_sequences, args.eval_horizon)
        self.processing_class, self.folder = processing_class, RunFolder(args.output_dir)
        self.soft_targets = soft_targets
        self.phases = phases_of(args)
        self.full_length = self.train_dataset.sequence_length
        check_consistency(model, self.teacher, args, self.train_dataset, self.full_length, soft_targets)
        self.accelerator = accelerator_for(args)
        self.step, self.tokens, self.sequential_steps, self.seconds = 0, 0, 0, 0.0
        self.phase_index, self.agreed_seconds = 0, 0.0
        self.signals, self.agreed_signal = StopSignals(), 0
        several = self.accelerator.num_processes > 1 and self.accelerator.device.type != "cpu"
        self.agree_every = AGREE_EVERY if several else 1  # it makes a device wait
        self.record = new_record(model, self.teacher, args, self.phases, self.train_dataset, **(known or {}))

    def train(self, resume: bool = False) -> RunRecord:
        """Run the phases to the end of the budget, save the run folder, and return the record.

        Raises, before any work: ValueError for a folder or arguments that cannot be, what `check_access` does.
        Later: NonFiniteLossError; Interrupted after SIGTERM or Ctrl-C, with a checkpoint saved, after the same
        step on all processes.
        """
        with self.signals:
            try:
                tensors = self._begin(resume)
                if not self.record.finished:  # else only its upload is left
                    self._run_phases(tensors)
                finish(self)
            except Interrupted as stop:
                leave(self.accelerator, stop)
                raise
            finally:
                self.folder.release()
            self.accelerator.end_training()
        return self.record

    def _begin(self, resume: bool) -> dict[str, Any] | None:
        """Take the folder and, to go on from a checkpoint, load it; the optimizer's tensors are returned."""
        found = claim(
            self.accelerator, self.folder, self.record, self.model.config.to_dict(), self.args, resume
        )
        if found.record is not None and found.record.finished:
            self.record = found.record
            return None
        tensors = self._load(found.checkpoint) if found.checkpoint else None
        check_phase(self.phases, self.phase_index, self._progress(), self.args)
        if found.record is not None and tensors is not None and self._progress() >= 1:
            for name in ("finishing", "final", "prompt", "samples"):
                setattr(self.record, name, getattr(found.record, name))
        if self.accelerator.is_main_process:
            self.record.write(self.folder.path)
            judged = self._progress() < 1 or "evaluation" in self.record.finishing
            self.folder.forget_after(self.step, last_evaluation=judged)
            if resume:
                where = found.checkpoint
                tqdm.write(f"resuming from {where}" if where else "no checkpoint yet; starting anew")
        if self.args.trackers:
            self.accelerator.init_trackers("smt-hf", config=self.args.to_dict())
        for module in self._modules().values():
            module.to(self.accelerator.device)
        return tensors

    def _run_phases(self, tensors: dict[str, Any] | None) -> None:
        bar = tqdm(
            total=100, disable=self.args.disable_tqdm or not self.accelerator.is_main_process,
            bar_format="{desc} {percentage:3.0f}%|{bar:12}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip
        with bar:
            while self.phase_index < len(self.phases):
                phase = self.phases[self.phase_index]
                self._run_phase(phase, tensors, bar)
                tensors = None
                if at_end := PHASES[phase.name].at_end:
                    at_end(self.teacher, self.model)
                self.phase_index += 1

    def _run_phase(self, phase: schedule.Phase, tensors: dict[str, Any] | None, bar: tqdm) -> None:
        args, accelerator = self.args, self.accelerator
        objective = Objective(self.model, self.teacher, args, self.soft_targets)
        for name, parameter in objective.named_parameters():
            parameter.requires_grad_(name.startswith(PHASES[phase.name].trains))
        trained = [p for p in objective.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained,
            lr=phase.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            weight_decay=args.weight_decay,
            fused=True,
        )
        prepared, optimizer = accelerator.prepare(objective, optimizer)
        if tensors is not None:
            optimizer.load_state_dict(tensors["optimizer"])
            if accelerator.scaler is not None and tensors["scaler"]:
                accelerator.scaler.load_state_dict(tensors["scaler"])
        self.model.train()

        context_length = self.teacher.config.context_length if self.teacher is not None else 0
        length = prompt = 0
        bad_step = torch.full((), -1, device=accelerator.device)
        with ExitStack() as stack:
            while (progress := self._progress()) < phase.end:
                began = time.perf_counter()
                wanted = schedule.sequence_length(phase, progress, self.full_length, args)
                if wanted != length:
                    length = wanted
                    if args.prompt_fraction:
                        prompt = prompt_length(self.train_dataset.at_length(length))
                    stack.close()  # ends the workers of another length
                    batches = batches_at_length(
                        self.train_dataset, length, self.full_length, args, self.step,
                        accelerator.process_index, accelerator.num_processes,
                    )  # fmt: skip
                    stack.enter_context(closing(batches))
                for group in optimizer.param_groups:
                    group["lr"] = schedule.learning_rate(phase, progress, args)
                moment = Moment(self.step, length, self.full_length, context_length, prompt)
                parts, finite = self._step(phase, moment, prepared, batches, trained, optimizer)
                # Remembered on the device; looked at only when something is about to be logged or saved.
                bad_step = torch.where((bad_step < 0) & ~finite, self.step, bad_step)
                self.seconds += time.perf_counter() - began
                self._after_step(phase, progress, length, parts, bad_step, optimizer, bar)
        check_finite(bad_step, phase.name, self.folder.checkpoints)
        accelerator.free_memory()

    def _step(self, phase, moment, prepared, batches, trained, optimizer) -> tuple[Any, torch.Tensor]:
        """One step of the optimizer: the parts of its loss, and whether loss and gradient were finite."""
        args, accelerator = self.args, self.accelerator
        choices, depth = draws(phase, moment, args)
        parts: dict[str, torch.Tensor] = {}
        finite = torch.ones((), dtype=torch.bool, device=accelerator.device)
        for _ in range(args.gradient_accumulation_steps):
            batch = send_to_device(next(batches), accelerator.device, non_blocking=True)
            with accelerator.autocast():
                loss, parts = prepared(phase.name, batch, **choices)
            accelerator.backward(loss / args.gradient_accumulation_steps)
            finite = finite & torch.isfinite(loss.detach())
            self.tokens += batch["input_ids"].numel() * accelerator.num_processes
            self.sequential_steps += depth
        norm = accelerator.clip_grad_norm_(trained, args.max_grad_norm)
        if accelerator.scaler is None:  # a scaler skips such steps by itself, and lowers its scale
            finite = finite & torch.isfinite(norm)
        optimizer.step()
        optimizer.zero_grad()
        self.step += 1
        return parts, finite

    def _after_step(self, phase, progress, length, parts, bad_step, optimizer, bar) -> None:
        args = self.args
        if self.step % args.logging_steps == 0:
            check_finite(bad_step, phase.name, self.folder.checkpoints)
            # Of the whole batch: every process has seen its share of the rows.
            means = self.accelerator.reduce(torch.stack(list(parts.values())), "mean").tolist()
            values = dict(zip(parts, means, strict=True))
            self._log({
                "phase": phase.name, "progress": progress, "sequence_length": length,
                "learning_rate": optimizer.param_groups[0]["lr"], **values,
            })  # fmt: skip
            bar.n = round(100 * self._progress(), 1)
            shown = {name.removesuffix("_loss")[:7]: f"{value:.2f}" for name, value in values.items()}
            bar.set_description(phase.name, refresh=False)
            bar.set_postfix(shown)
        if self.step % self.agree_every == 0:
            self.agree()
        done = self._progress()
        evaluations = args.num_evaluations
        if evaluations and math.floor(done * evaluations) > math.floor(progress * evaluations) and done < 1:
            check_finite(bad_step, phase.name, self.folder.checkpoints)
            self.evaluate(phase)
        due = args.checkpoint_every and self.step % args.checkpoint_every == 0
        # After the last step, too: what finishes the run may be interrupted.
        if due or done >= 1 or self.agreed_signal:
            check_finite(bad_step, phase.name, self.folder.checkpoints)
            self._save_checkpoint(optimizer)
            self.stop_if_agreed()

    def _progress(self) -> float:
        """How far the run is, 0 … 1, in steps or in seconds of training. All processes agree on it."""
        if self.args.max_steps is not None:
            return min(1.0, self.step / self.args.max_steps)
        assert self.args.max_minutes is not None
        return min(1.0, self.agreed_seconds / (60 * self.args.max_minutes))

    def agree(self) -> None:
        """All processes hear of the main one's clock, and of a signal that reached any of them."""
        mine = self.seconds, self.signals.number
        self.agreed_seconds, self.agreed_signal = agree(self.accelerator, *mine)

    def stop_if_agreed(self) -> None:
        """To be called where there is a checkpoint of this step. Raises Interrupted."""
        if self.agreed_signal:
            self.accelerator.wait_for_everyone()  # nobody leaves before the main process has saved
            raise Interrupted(self.folder.checkpoints / checkpoints.name_of(self.step), self.agreed_signal)

    def evaluate(self, phase: schedule.Phase) -> dict[str, Any]:
        """Free-running metrics from a cold start and, with a teacher, the drift from it; logged.

        The model is first made what the phase says it is: in SMT its readout and m_∅ are the teacher's.
        """
        if self.eval_dataset is None:
            return {}
        if before := PHASES[phase.name].before_evaluation:
            before(self.teacher, self.model)
        args = self.args
        metrics = validate(self.model, self.teacher, self.eval_dataset, args.eval_sequences, args.eval_horizon)
        self._log({"phase": phase.name, "progress": self._progress(), "evaluation": metrics})
        return metrics

    def _log(self, values: dict[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        line = {
            "step": self.step, "seconds": round(self.seconds, 3), "tokens": self.tokens,
            "sequential_steps": self.sequential_steps, **values,
        }  # fmt: skip
        self.folder.log(line)
        if self.args.trackers:
            flat = {**values, **values.get("evaluation", {})}
            self.accelerator.log({k: v for k, v in flat.items() if isinstance(v, int | float)}, step=self.step)

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({"teacher": self.teacher} if self.teacher is not None else {})

    def _save_checkpoint(self, optimizer) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        tensors = {
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "torch_rng": torch.get_rng_state(),
        }
        state = {name: getattr(self, name) for name in COUNTERS} | {"phase": self.phases[self.phase_index].name}
        limit = self.args.save_total_limit
        checkpoints.save_checkpoint(self.folder.checkpoints, self._modules(), tensors, state, limit)

    def _load(self, checkpoint: Path) -> dict[str, Any]:
        state = checkpoints.read_state(checkpoint)
        checkpoints.load_weights(checkpoint, self._modules())
        state.setdefault("agreed_seconds", state["seconds"])  # smt-hf 0.1 did not keep it
        self.phase_index = index_of(state, self.phases, checkpoint)
        for name in COUNTERS:
            setattr(self, name, state[name])
        tensors = checkpoints.load_tensors(checkpoint)
        torch.set_rng_state(tensors["torch_rng"])
        return tensors
