"""SMTPretrainingArguments: every number of a training run, documented once."""

from dataclasses import asdict, dataclass, field

METHODS = ("smt", "bptt")
# The paper's best weights: prediction 1, dynamics 0.1, uniformity 0.001.
DYNAMICS_WEIGHT, UNIFORMITY_WEIGHT = 0.1, 0.001
WEIGHTS = (
    "prediction_weight",
    "dynamics_weight",
    "uniformity_weight",
    "readout_weight",
    "cell_readout_weight",
    "trunk_weight",
)


@dataclass
class SMTPretrainingArguments:
    """How to train. Architectures are in `SMTConfig` and `SMTTeacherConfig`; text beside a field is its help.

    Raises ValueError for values that contradict one another or are out of range, before any work is done.
    """

    output_dir: str = field(metadata={"help": "folder of the run; must be new unless resuming"})
    method: str = field(default="smt", metadata={"help": "smt (SMT, then DMT) or bptt (the baseline)"})

    max_steps: int | None = field(default=None, metadata={"help": "budget in optimizer steps"})
    max_minutes: float | None = field(
        default=None,
        metadata={"help": "budget in minutes of training, evaluations and saving not counted"},
    )
    dmt_fraction: float = field(default=0.3, metadata={"help": "share of the budget that DMT gets"})
    bptt_fraction: float = field(
        default=0.0, metadata={"help": "share of the budget that BPTT gets after SMT and DMT"}
    )

    batch_size: int = field(
        default=32,
        metadata={"help": "sequences per optimizer step, over all processes and accumulation"},
    )
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "split a batch into so many parts"})
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate of SMT or BPTT"})
    dmt_learning_rate: float = field(default=3e-4, metadata={"help": "peak learning rate of DMT"})
    bptt_learning_rate: float = field(
        default=3e-4, metadata={"help": "peak learning rate of BPTT after SMT and DMT"}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW weight decay"})
    adam_beta1: float = field(default=0.9, metadata={"help": "AdamW β1"})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW β2"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "clip the gradient to this norm"})
    warmup_ratio: float = field(default=0.05, metadata={"help": "share of a phase that warms up"})
    decay_ratio: float = field(default=0.3, metadata={"help": "share of a phase that decays to 0, at its end"})

    num_labels: int = field(default=8, metadata={"help": "consecutive memory labels of an SMT step"})
    prediction_weight: float = field(default=1.0, metadata={"help": "weight in SMT of the prediction loss"})
    dynamics_weight: float = field(
        default=DYNAMICS_WEIGHT, metadata={"help": "weight in SMT of the dynamics loss"}
    )
    uniformity_weight: float = field(
        default=UNIFORMITY_WEIGHT, metadata={"help": "weight in SMT of the uniformity loss"}
    )
    readout_weight: float = field(
        default=1.0, metadata={"help": "weight in SMT of reading each label out (the paper: 0)"}
    )
    cell_readout_weight: float = field(
        default=0.0, metadata={"help": "weight in SMT of reading out what the cell makes of a label"}
    )
    trunk_weight: float = field(
        default=1.0, metadata={"help": "weight in SMT of the causal trunk's own loss (the paper: 0)"}
    )
    detach_labels: bool = field(
        default=False, metadata={"help": "keep the dynamics loss of SMT from reaching the encoder"}
    )
    prompt_fraction: float = field(
        default=0.0,
        metadata={"help": "share of SMT steps that predict the future from the end of the prompt"},
    )
    rollout_length: int = field(default=32, metadata={"help": "free-running tokens of a DMT window (R)"})
    num_sweeps: int = field(
        default=0,
        metadata={"help": "parallel sweeps of a DMT rollout (P); 0: one token after another"},
    )
    dmt_label_every: int = field(
        default=1,
        metadata={"help": "train every n-th step of a DMT rollout only; cheaper where rollouts are long"},
    )
    cold_start_fraction: float = field(
        default=0.3, metadata={"help": "share of DMT windows that start from the empty memory"}
    )
    curriculum_start_length: int | None = field(
        default=None,
        metadata={"help": "grow sequences geometrically from this length, tokens per step staying the same"},
    )
    curriculum_fraction: float = field(
        default=0.7,
        metadata={"help": "share of the first phase after which sequences have full length"},
    )

    num_evaluations: int = field(default=8, metadata={"help": "evaluations, spread evenly over the budget"})
    eval_sequences: int = field(default=64, metadata={"help": "validation sequences of each evaluation"})
    eval_horizon: int = field(default=256, metadata={"help": "tokens read from a cold start in each (text)"})
    logging_steps: int = field(default=20, metadata={"help": "steps between two lines of metrics.jsonl"})
    checkpoint_every: int = field(default=500, metadata={"help": "steps between checkpoints; 0: none"})
    save_total_limit: int = field(default=2, metadata={"help": "checkpoints kept"})

    seed: int = field(default=0, metadata={"help": "of weights, data order and all draws"})
    mixed_precision: str = field(default="no", metadata={"help": "no, bf16 or fp16; memories stay float32"})
    torch_compile: bool = field(default=False, metadata={"help": "compile the training step"})
    dataloader_num_workers: int = field(default=0, metadata={"help": "processes that prepare batches"})
    report_to: str = field(default="none", metadata={"help": "none, or trackers: tensorboard,trackio,wandb"})
    disable_tqdm: bool = field(default=False, metadata={"help": "no progress bar"})
    push_to_hub: bool = field(default=False, metadata={"help": "upload the run when it is finished"})
    hub_model_id: str | None = field(default=None, metadata={"help": "repository to push to"})
    hub_private_repo: bool = field(default=False, metadata={"help": "make a new repository private"})

    def __post_init__(self):
        if (self.max_steps is None) == (self.max_minutes is None):
            raise ValueError(
                f"max_steps is {self.max_steps} and max_minutes is {self.max_minutes}; give exactly one."
            )
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; it must be one of {', '.join(METHODS)}.")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision is {self.mixed_precision!r}; it must be no, bf16 or fp16.")
        positive = (
            "max_steps max_minutes batch_size gradient_accumulation_steps learning_rate dmt_learning_rate "
            "bptt_learning_rate max_grad_norm rollout_length eval_sequences eval_horizon logging_steps "
            "save_total_limit curriculum_start_length dmt_label_every"
        )
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; it must be greater than 0.")
        for name in [
            *WEIGHTS,
            "weight_decay",
            "num_sweeps",
            "num_evaluations",
            "checkpoint_every",
            "dataloader_num_workers",
        ]:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        for name in [
            "dmt_fraction",
            "bptt_fraction",
            "warmup_ratio",
            "decay_ratio",
            "cold_start_fraction",
            "curriculum_fraction",
            "prompt_fraction",
        ]:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        if self.dmt_fraction + self.bptt_fraction > 1:
            raise ValueError(
                f"dmt_fraction {self.dmt_fraction} and bptt_fraction {self.bptt_fraction} are more than the "
                f"whole budget; together they must be at most 1."
            )
        if self.num_labels < 2:
            raise ValueError(f"num_labels is {self.num_labels}; a memory transition needs at least 2.")
        if self.dmt_label_every > self.rollout_length:
            raise ValueError(
                f"dmt_label_every is {self.dmt_label_every}; it must be at most rollout_length "
                f"{self.rollout_length}."
            )
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
    def smt_options(self) -> dict[str, float | bool]:
        """The arguments of `smt_loss` that are the same at every step."""
        return {name: getattr(self, name) for name in (*WEIGHTS, "detach_labels")}

    def to_dict(self) -> dict:
        return asdict(self)
