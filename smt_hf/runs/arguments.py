"""SMTPretrainingArguments: every number of a training run, with its help and its range, documented once."""

import dataclasses
import math
import types
import typing
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

METHODS = ("smt", "bptt")


def option(default: Any, help: str, group: str = "", **limits: Any) -> Any:
    """A field of a run: `help` and `group` are those of its flag.

    limits: at_least, above, below, at_most (numbers), one_of (strings); free=True: may change when a run is
    resumed. None is allowed where the type has it.
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group, **limits})


def check_fields(values: Any) -> None:
    """Raise ValueError for the first field of a dataclass whose value is out of range, or no number at all."""
    for field in dataclasses.fields(values):
        value, limits = getattr(values, field.name), field.metadata
        if value is None:
            if type(None) not in kinds_of(type(values), field.name):
                raise ValueError(f"{field.name} is missing; {limits['help']}.")
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} is {value}; it must be a finite number.")
        if "one_of" in limits and value not in limits["one_of"]:
            raise ValueError(f"{field.name} is {value!r}; it must be one of {', '.join(limits['one_of'])}.")
        if (
            "at_least" in limits
            and "at_most" in limits
            and not limits["at_least"] <= value <= limits["at_most"]
        ):
            raise ValueError(
                f"{field.name} is {value}; it must lie between {limits['at_least']} and {limits['at_most']}."
            )
        if "at_least" in limits and value < limits["at_least"]:
            least = limits["at_least"]
            what = "not be negative" if least == 0 else f"be at least {least}"
            raise ValueError(f"{field.name} is {value}; it must {what}.")
        if "above" in limits and value <= limits["above"]:
            raise ValueError(f"{field.name} is {value}; it must be greater than {limits['above']}.")
        if "below" in limits and value >= limits["below"]:
            raise ValueError(f"{field.name} is {value}; it must be less than {limits['below']}.")


hints_of = cache(typing.get_type_hints)  # which reads all the hints of a class


def kinds_of(cls: type, name: str) -> tuple[type, ...]:
    """The types that a field allows: (int, NoneType) of `int | None`."""
    hint = hints_of(cls)[name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


# Steps of a DMT rollout, which has at least so many.
ROLLOUT_PARTS = ("dmt_label_every", "dmt_gradient_steps")
# What makes labels; the first two have a trunk that learns the text by itself.
WITH_TRUNK = ("causal", "projected")
ENCODER_TYPES = (*WITH_TRUNK, "bidirectional", "given")
# Shares of the budget, of which SMT gets the rest.
BESIDE_SMT = ("trunk_fraction", "dmt_fraction", "bptt_fraction")
# Weights of the terms of the SMT loss.
WEIGHTS = (
    *("prediction_weight", "dynamics_weight", "uniformity_weight"),
    *("readout_weight", "cell_readout_weight", "trunk_weight"),
)
BUDGET, OPTIMIZATION, METHOD = "budget", "optimization", "method"
LOGGING, MACHINE, HUB = "evaluation, logging and checkpoints", "machine", "Hub"


def shares(args: "SMTPretrainingArguments") -> str:
    """The shares of the budget that are not SMT's, in words."""
    *most, last = [f"{name} {share:g}" for name in BESIDE_SMT if (share := getattr(args, name))]
    return f"{', '.join(most)} and {last}" if most else last


@dataclass
class SMTPretrainingArguments:
    """How to train. Architectures are in `SMTConfig` and `SMTTeacherConfig`; text beside a field is its help.

    Raises ValueError for values that contradict one another or are out of range, before any work is done.
    """

    output_dir: str = option(
        dataclasses.MISSING, "folder of the run; must be new unless resuming", "run", free=True
    )
    method: str = option("smt", "smt (SMT, then DMT) or bptt (the baseline)", "run", one_of=METHODS)
    seed: int = option(0, "of weights, data order and all draws", "run", at_least=0, at_most=2**40)

    max_steps: int | None = option(None, "budget in optimizer steps", BUDGET, above=0)
    max_minutes: float | None = option(
        None, "budget in minutes of training, evaluations and saving not counted", BUDGET, above=0
    )
    trunk_fraction: float = option(
        0.0, "share of the budget in which, before SMT, the teacher's trunk alone learns to predict", BUDGET,
        at_least=0, at_most=1,
    )  # fmt: skip
    dmt_fraction: float = option(0.3, "share of the budget that DMT gets", BUDGET, at_least=0, at_most=1)
    bptt_fraction: float = option(
        0.0, "share of the budget that BPTT gets after SMT and DMT", BUDGET, at_least=0, at_most=1
    )

    batch_size: int = option(
        32, "sequences per optimizer step, over all processes and accumulation", OPTIMIZATION, above=0
    )
    gradient_accumulation_steps: int = option(1, "split a batch into so many parts", OPTIMIZATION, above=0)
    learning_rate: float = option(
        1e-3, "peak learning rate of SMT, of the trunk before it, or of BPTT alone", OPTIMIZATION, above=0
    )
    dmt_learning_rate: float = option(3e-4, "peak learning rate of DMT", OPTIMIZATION, above=0)
    bptt_learning_rate: float = option(
        3e-4, "peak learning rate of BPTT after SMT and DMT", OPTIMIZATION, above=0
    )
    weight_decay: float = option(0.01, "AdamW weight decay", OPTIMIZATION, at_least=0)
    adam_beta1: float = option(0.9, "AdamW β1", OPTIMIZATION, at_least=0, below=1)
    adam_beta2: float = option(0.95, "AdamW β2", OPTIMIZATION, at_least=0, below=1)
    max_grad_norm: float = option(1.0, "clip the gradient to this norm", OPTIMIZATION, above=0)
    warmup_ratio: float = option(0.05, "share of a phase that warms up", OPTIMIZATION, at_least=0, at_most=1)
    decay_ratio: float = option(
        0.3, "share of a phase that decays to 0, at its end", OPTIMIZATION, at_least=0, at_most=1
    )

    num_labels: int = option(8, "consecutive memory labels of an SMT step", METHOD, at_least=2)
    # The paper's best weights: prediction 1, dynamics 0.1, uniformity 0.001, and none of the others.
    prediction_weight: float = option(1.0, "weight in SMT of the prediction loss", METHOD, at_least=0)
    dynamics_weight: float = option(0.1, "weight in SMT of the dynamics loss", METHOD, at_least=0)
    uniformity_weight: float = option(0.001, "weight in SMT of the uniformity loss", METHOD, at_least=0)
    readout_weight: float = option(
        1.0, "weight in SMT of reading each label out (the paper: 0)", METHOD, at_least=0
    )
    cell_readout_weight: float = option(
        0.0, "weight in SMT of reading out what the cell makes of a label", METHOD, at_least=0
    )
    trunk_weight: float = option(
        1.0, "weight in SMT of the causal trunk's own loss (the paper: 0)", METHOD, at_least=0
    )
    detach_labels: bool = option(False, "keep the dynamics loss of SMT from reaching the encoder", METHOD)
    prompt_fraction: float = option(
        0.0, "share of SMT steps that predict the future from the end of the prompt", METHOD,
        at_least=0, at_most=1,
    )  # fmt: skip
    teacher_weight: float = option(
        0.5, "share of a readout's loss that a given teacher's distribution gets (--teacher)", METHOD,
        at_least=0, at_most=1,
    )  # fmt: skip
    rollout_length: int = option(32, "free-running tokens of a DMT window (R)", METHOD, above=0)
    num_sweeps: int = option(
        0, "parallel sweeps of a DMT rollout (P); 0: one token after another", METHOD, at_least=0
    )
    dmt_label_every: int = option(
        1, "train every n-th step of a DMT rollout only; cheaper where rollouts are long", METHOD, above=0
    )
    dmt_gradient_steps: int = option(
        1, "steps in a row of a DMT rollout that the gradient goes back through", METHOD, above=0
    )
    dmt_imitation_weight: float = option(
        10.0, "weight of the teacher's memories in DMT, beside the cross-entropy", METHOD, at_least=0
    )
    cold_start_fraction: float = option(
        0.3, "share of DMT windows that start from the empty memory", METHOD, at_least=0, at_most=1
    )
    curriculum_start_length: int | None = option(
        None, "grow sequences geometrically from this length, tokens per step staying the same", METHOD, above=0
    )
    curriculum_fraction: float = option(
        0.7,
        "share of SMT, or of BPTT alone, after which sequences have full length",
        METHOD,
        at_least=0,
        at_most=1,
    )

    num_evaluations: int = option(
        8, "evaluations, spread evenly over the budget", LOGGING, at_least=0, free=True
    )
    eval_sequences: int = option(64, "validation sequences of each evaluation", LOGGING, above=0, free=True)
    eval_horizon: int = option(256, "tokens read from a cold start in each (text)", LOGGING, above=0, free=True)
    logging_steps: int = option(20, "steps between two lines of metrics.jsonl", LOGGING, above=0, free=True)
    checkpoint_every: int = option(500, "steps between checkpoints; 0: none", LOGGING, at_least=0, free=True)
    save_total_limit: int = option(2, "checkpoints kept", LOGGING, above=0, free=True)
    report_to: str = option("none", "none, or trackers: tensorboard,trackio,wandb", LOGGING, free=True)
    disable_tqdm: bool = option(False, "no progress bar", LOGGING, free=True)

    mixed_precision: str = option(
        "no", "no, bf16 or fp16; memories stay float32", MACHINE, one_of=("no", "bf16", "fp16")
    )
    torch_compile: bool = option(False, "compile the training step", MACHINE, free=True)
    dataloader_num_workers: int = option(0, "processes that prepare batches", MACHINE, at_least=0, free=True)

    push_to_hub: bool = option(False, "upload the run when it is finished", HUB, free=True)
    hub_model_id: str | None = option(None, "repository to push to", HUB, free=True)
    hub_private_repo: bool = option(False, "make a new repository private", HUB, free=True)

    def __post_init__(self):
        check_fields(self)
        if (self.max_steps is None) == (self.max_minutes is None):
            raise ValueError(
                f"max_steps is {self.max_steps} and max_minutes is {self.max_minutes}; give exactly one."
            )
        if self.share_beside_smt > 1 + 1e-9:
            raise ValueError(f"{shares(self)} are more than the whole budget; together they must be at most 1.")
        for name in ROLLOUT_PARTS:
            if (steps := getattr(self, name)) > self.rollout_length:
                raise ValueError(f"{name} is {steps}; it must be at most rollout_length {self.rollout_length}.")
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into {self.gradient_accumulation_steps} "
                f"accumulation steps."
            )
        if self.push_to_hub and not self.hub_model_id:
            raise ValueError("push_to_hub needs hub_model_id, the repository to push to.")

    @property
    def trackers(self) -> list[str]:
        return [] if self.report_to in ("", "none") else self.report_to.split(",")

    @property
    def share_beside_smt(self) -> float:
        return sum(getattr(self, name) for name in BESIDE_SMT)

    @property
    def smt_options(self) -> dict[str, float | bool]:
        """The arguments of `smt_loss` that are the same at every step."""
        return {name: getattr(self, name) for name in (*WEIGHTS, "detach_labels", "teacher_weight")}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
