"""From the description of a run to a trainer that is ready to run it, everything checked, nothing written."""

from typing import Any

import torch

from smt_hf.data import TokenWindows, data_kind, load_data
from smt_hf.models.configuration_smt import SMTConfig
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.runs.own_cell import use_cell
from smt_hf.runs.spec import RunSpec

from . import fitting
from .configuration_teacher import SMTTeacherConfig
from .soft_targets import SoftTargets, own_tokenizer
from .stored_targets import read_once
from .teacher import SMTTeacher
from .token_vectors import start_from
from .trainer import SMTPretrainer

SIZES = ("hidden_size", "num_memory_tokens", "num_readout_layers", "num_attention_heads")
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def build(spec: RunSpec, command: list[str] | None = None) -> SMTPretrainer:
    """The trainer of a run: `build(RunSpec.of(dataset="my.txt", max_minutes=10, output_dir="run")).train()`.

    command: the words of the command line that asked for it, if it is not `spec.command()`.

    Raises ValueError, in one sentence, for anything in the description that could not be run.
    """
    use_cell(spec.cell)
    if spec.teacher_top is not None and spec.teacher is None:
        raise ValueError(f"teacher_top is {spec.teacher_top}, and there is no teacher; give --teacher too.")
    if spec.method == "smt" and spec.encoder_type == "given" and spec.teacher is None:
        raise ValueError("encoder_type is 'given', and there is no teacher; name one with --teacher.")
    for name, value in (("teacher", spec.teacher), ("tokenizer", spec.tokenizer)):
        if value is not None and data_kind(spec.dataset, spec.image_column) != "text":
            raise ValueError(f"{name} is {value!r}, and {spec.dataset!r} is no text; leave {name} out.")
    fitting.refuse_what_cannot_teach(spec)
    spec, length, lengths = fitting.with_lengths(fitting.with_memory_for_layers(spec))
    given = None if spec.teacher is None else own_tokenizer(spec.teacher, spec.tokenizer)
    data = load_data(
        tokenizer=given or spec.tokenizer, sequence_length=length, seed=spec.seed, **load_names(spec)
    )
    if data.kind == "image":  # as long as an image, which is known by now
        length = data.train.sequence_length
        fitting.refuse_other_context(spec, length)
        lengths = {"context_length": length, "future_length": min(length, lengths["future_length"])}
    assert length is not None  # of images, which have one by now
    fitting.refuse_longer_than_rows(spec, length, lengths["context_length"])
    spec = fitting.with_room_for_rollouts(spec, lengths["context_length"])
    spec = fitting.with_horizon_of_text(spec, data)
    fitting.tell(spec, data, length)

    tokenizer = data.tokenizer
    vocab_size = max(len(tokenizer), data.train.vocab_size)  # a tokenizer may have holes
    soft_targets = None if spec.teacher is None else SoftTargets.load(spec.teacher, vocab_size)
    torch.manual_seed(spec.seed)
    special = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    model = SMTForCausalLM(model_config(spec, vocab_size, **special))
    known = {
        "command": spec.command() if command is None else command,
        "bytes_per_token": data.validation.bytes_per_token,
        "data_fingerprint": data.fingerprint,
        "teacher_fingerprint": soft_targets.fingerprint if soft_targets is not None else None,
    }
    teacher = teacher_of(spec, soft_targets, vocab_size, **lengths) if spec.method == "smt" else None
    train, given_model = data.train, soft_targets
    if spec.teacher_top is not None and soft_targets is not None and spec.teacher_weight:
        assert isinstance(train, TokenWindows)  # as text is
        train, soft_targets = read_once(soft_targets, train, spec.teacher_top, spec.disable_tqdm), None
    trainer = SMTPretrainer(
        model, teacher, spec, train, data.validation, tokenizer, known=known, soft_targets=soft_targets
    )
    if given_model is not None and spec.teacher_embeddings:  # it has been checked by now
        start_from(given_model, model, *([teacher] if teacher is not None else []))
    return trainer


def model_config(spec: RunSpec, vocab_size: int, **special_tokens: Any) -> SMTConfig:
    sizes: dict[str, Any] = {name: getattr(spec, name) for name in SIZES if getattr(spec, name) is not None}
    return SMTConfig(
        vocab_size=vocab_size,
        cell=spec.cell,
        num_hidden_layers=spec.num_hidden_layers or 1,
        bptt_truncation=spec.bptt_truncation,
        **sizes,
        **special_tokens,
    )


def teacher_of(spec: RunSpec, given: SoftTargets | None, vocab_size: int, **lengths: Any) -> SMTTeacher:
    """lengths: context_length and future_length, see `fitting.with_lengths`."""
    sizes: dict[str, Any] = {name: getattr(spec, name) for name in SIZES if getattr(spec, name) is not None}
    if spec.num_encoder_layers is not None:
        sizes["num_hidden_layers"] = spec.num_encoder_layers
    config = {"vocab_size": vocab_size, "encoder_type": spec.encoder_type, **sizes, **lengths}
    if spec.encoder_type == "given" and given is not None:
        return SMTTeacher.from_causal_lm(given, **config)
    return SMTTeacher(SMTTeacherConfig(**config))


def load_names(spec: RunSpec) -> dict[str, Any]:
    """What names the data, as `load_data` takes it."""
    named = spec.data
    return {"name": named.pop("dataset"), **named}
