"""Pretrain a recurrent language model: SMT then DMT, or BPTT, and write a run folder."""

import argparse
import dataclasses
import shlex
from typing import Any

from smt_hf.data.tasks import TASKS
from smt_hf.pretraining.arguments import SMTPretrainingArguments
from smt_hf.pretraining.presets import PRESETS

MODEL_FLAGS = {
    "hidden_size": "width of memory tokens, D",
    "num_memory_tokens": "number of memory tokens, K",
    "num_hidden_layers": "depth of the cell",
    "num_readout_layers": "depth of the readout (and of the teacher's decoder)",
    "num_attention_heads": "attention heads",
    "bptt_truncation": "cut the gradient through time every so many tokens (BPTT)",
}
TEACHER_FLAGS = {
    "context_length": "most tokens a memory label sums up, Tc (tasks: the whole sequence)",
    "future_length": "targets a memory label must predict, F (tasks: to the end, unless given)",
}
DATA_FLAGS = (
    "dataset", "text_column", "image_column", "grey_levels", "split", "validation_split", "streaming",
    "max_corpus_bytes",
)  # fmt: skip
TRAINING_GROUPS = {
    "budget": "max_steps max_minutes dmt_fraction bptt_fraction",
    "optimization": "batch_size gradient_accumulation_steps learning_rate dmt_learning_rate "
    "bptt_learning_rate weight_decay adam_beta1 adam_beta2 max_grad_norm warmup_ratio decay_ratio",
    "method": "num_labels prediction_weight dynamics_weight uniformity_weight readout_weight "
    "cell_readout_weight trunk_weight detach_labels prompt_fraction rollout_length num_sweeps "
    "dmt_label_every cold_start_fraction curriculum_start_length curriculum_fraction",
    "evaluation, logging and checkpoints": "num_evaluations eval_sequences eval_horizon logging_steps "
    "checkpoint_every save_total_limit report_to disable_tqdm",
    "machine": "mixed_precision torch_compile dataloader_num_workers",
    "Hub": "push_to_hub hub_model_id hub_private_repo",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("run")
    run.add_argument("--output-dir", required=True, help="folder of the run; must be new unless resuming")
    run.add_argument("--method", default="smt", help="smt (SMT, then DMT) or bptt (the baseline) [smt]")
    run.add_argument("--preset", default="small", help=f"sizes that go together: {preset_help()} [small]")
    run.add_argument("--seed", type=int, default=0, help="of weights, data order and all draws [0]")
    run.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint of the run")
    add_data_arguments(parser)

    model = parser.add_argument_group("model and teacher (default: the preset's)")
    model.add_argument("--cell", default="gru", help="transformer, mlp, gru, lstm, elman or module:Class [gru]")
    for name, text in {**MODEL_FLAGS, **TEACHER_FLAGS}.items():
        model.add_argument(flag(name), type=int, help=text)
    model.add_argument("--num-encoder-layers", type=int, help="depth of the teacher's encoder")
    model.add_argument("--encoder-type", help="causal or bidirectional (the paper's) [causal]")

    fields = {f.name: f for f in dataclasses.fields(SMTPretrainingArguments)}
    for title, names in TRAINING_GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names.split():
            add_field(group, fields[name])


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        help="python-docs, digits (images), a text file or folder, a `datasets` name, or a task "
        f"({', '.join(TASKS)}; NAME:size=number sets its sizes) [python-docs]",
    )
    data.add_argument("--sequence-length", type=int, help="tokens of a training sequence; length of a task")
    data.add_argument("--tokenizer", help="byte, or a Hugging Face tokenizer by name or folder [byte]")
    data.add_argument("--text-column", help="column with the text [text]")
    data.add_argument("--image-column", help="column with images, to be read as grey pixels [none: text]")
    data.add_argument("--grey-levels", type=int, help="grey levels of an image [17 of digits, else 256]")
    data.add_argument("--split", help="split of a `datasets` name to read [train]")
    data.add_argument(
        "--validation-split", help="split to validate on [its own validation, else 5%% of --split]"
    )
    data.add_argument("--streaming", action="store_true", default=None, help="stream a large `datasets` name")
    data.add_argument("--max-corpus-bytes", type=int, help="read no more text, or pixels, than this")


def data_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What names the data, for `load_data`; written into run.json, where `evaluate` looks it up."""
    return {"dataset": "python-docs", **given(args, DATA_FLAGS)}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def preset_help() -> str:
    return "; ".join(f"{name}: {preset.help}" for name, preset in PRESETS.items())


def add_field(group, field: dataclasses.Field) -> None:
    """One flag for one field of SMTPretrainingArguments; unset means the preset's value, then the default."""
    text = field.metadata["help"]
    if field.default is not None:
        text += f" [{field.default}]"
    text = text.replace("%", "%%")
    if field.type is bool or field.type == "bool":
        group.add_argument(flag(field.name), action="store_true", default=None, help=text)
        return
    kinds = {"int": int, "float": float, "str": str}
    kind = str(field.type).replace("<class '", "").replace("'>", "").split(" ")[0]
    group.add_argument(flag(field.name), type=kinds[kind], help=text)


def given(args: argparse.Namespace, names) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def build(args: argparse.Namespace):
    """From parsed flags to an SMTPretrainer, everything checked, nothing written."""
    import torch

    from smt_hf import SMTConfig, SMTForCausalLM
    from smt_hf.data import data_kind, load_data
    from smt_hf.pretraining.teacher import SMTTeacher, SMTTeacherConfig
    from smt_hf.pretraining.trainer import SMTPretrainer

    from .loading import use_cell

    if args.preset not in PRESETS:
        raise ValueError(f"unknown preset {args.preset!r}; choose one of {', '.join(PRESETS)}.")
    preset = PRESETS[args.preset]
    cell = use_cell(args.cell)
    names = [f.name for f in dataclasses.fields(SMTPretrainingArguments)]
    training = SMTPretrainingArguments(**{**preset.training, **given(args, names)})

    if args.sequence_length is not None and args.sequence_length < 2:
        raise ValueError(f"--sequence-length is {args.sequence_length}; it must be at least 2.")
    lengths = {**preset.teacher, **given(args, TEACHER_FLAGS)}
    named = data_arguments(args)
    kind = data_kind(named["dataset"], args.image_column)
    length = args.sequence_length
    if kind == "task":
        length = length or lengths["context_length"]
        lengths |= {"context_length": length, "future_length": length, **given(args, ["future_length"])}
    elif kind == "text" and args.sequence_length:
        room = args.sequence_length - lengths["future_length"]
        if training.method == "smt" and room < 2:
            raise ValueError(
                f"--sequence-length {args.sequence_length} leaves no context before a future of "
                f"{lengths['future_length']} tokens; make it longer, or --future-length shorter."
            )
        lengths["context_length"] = args.context_length or room
    elif kind == "text":
        length = lengths["context_length"] + lengths["future_length"]
    if args.num_encoder_layers is not None:
        lengths["num_hidden_layers"] = args.num_encoder_layers
    data = load_data(named.pop("dataset"), args.tokenizer, sequence_length=length, seed=args.seed, **named)
    if kind == "image":  # as long as an image, which is known by now
        length = data.train.sequence_length
        lengths |= {"context_length": length, "future_length": min(length, lengths["future_length"])}

    torch.manual_seed(args.seed)
    tokenizer = data.tokenizer
    sizes = {
        **preset.model,
        **given(args, ["hidden_size", "num_memory_tokens", "num_readout_layers", "num_attention_heads"]),
    }
    shared = {"vocab_size": len(tokenizer), **sizes}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    layers = preset.cell_layers(cell) if args.num_hidden_layers is None else args.num_hidden_layers
    config = SMTConfig(
        **shared, **special, cell=cell, num_hidden_layers=layers, **given(args, ["bptt_truncation"])
    )
    model = SMTForCausalLM(config)
    teacher = None
    if training.method == "smt":
        teacher = SMTTeacher(SMTTeacherConfig(**shared, **lengths, **given(args, ["encoder_type"])))
    description = {
        "command": ["smt-hf", *args.words],
        "preset": args.preset,
        "bytes_per_token": data.validation.bytes_per_token,
        "data_fingerprint": data.fingerprint,
        "data": data_arguments(args),
    }
    return SMTPretrainer(
        model, teacher, training, data.train, data.validation, tokenizer, description=description
    )


def train(args: argparse.Namespace) -> None:
    """Run what the flags say to its end, and print a summary."""
    from .loading import quiet

    quiet()
    trainer = build(args)
    record = trainer.train(resume=args.resume)
    if trainer.accelerator.is_main_process:
        print(summary(record))


def run(args: argparse.Namespace) -> int:
    from smt_hf.pretraining.trainer import Interrupted

    try:
        train(args)
    except Interrupted as stop:
        words = [word for word in args.words if word != "--resume"]
        print(f"stopped; saved {stop}. Go on with:\n  {shlex.join(['smt-hf', *words, '--resume'])}")
    return 0


def summary(record: dict[str, Any]) -> str:
    """What a finished run has to say, in a few lines of at most 80 columns."""
    from smt_hf.evaluation.metrics import describe

    lines = [
        f"{record['output_dir']}: {record['cell']} by {record['method']}, {record['parameters']:,} parameters",
        f"  {record['seconds']:.0f} s of training, {record['tokens']:,} tokens, "
        f"{record['sequential_steps']:,} sequential steps",
    ]
    if record.get("final"):
        lines.append("  " + describe(record["final"], record["data_kind"], record["bytes_per_token"]))
    return "\n".join(lines)
