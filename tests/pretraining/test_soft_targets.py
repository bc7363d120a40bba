# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, union-attr"
"""A given causal language model tells a student what it expects; it is read, never trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Stream, random_batch, tiny_arguments, tiny_llama, tiny_student, tiny_teacher
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedModel,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from smt_hf import RunSpec, build
from smt_hf.data import byte_tokenizer
from smt_hf.pretraining.objectives import answer_loss, bptt_loss, dmt_loss, smt_loss
from smt_hf.pretraining.phases import Objective
from smt_hf.pretraining.soft_targets import SoftTargets
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.pretraining.trainer import SMTPretrainer
from smt_hf.runs.record import RunRecord

BYTES = 258
SMALL: dict[str, Any] = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 257}
LAYERS: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES = {
    "gpt2": GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64, **SMALL),
    "llama": LlamaConfig(vocab_size=BYTES, hidden_size=16, max_position_embeddings=64, **LAYERS, **SMALL),
    "qwen2": Qwen2Config(vocab_size=BYTES, hidden_size=16, num_key_value_heads=1, **LAYERS, **SMALL),
    "mamba": MambaConfig(vocab_size=BYTES, hidden_size=16, state_size=4, num_hidden_layers=1, **SMALL),
}


def save_teacher(folder: Path, model: PreTrainedModel) -> str:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def causal_lm(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(FAMILIES[family])


def masked_lm() -> PreTrainedModel:
    """It loads whole as a causal language model, which `transformers` remarks in its log.

    Its weights are as small as they begin, so that an answer moves by a thousandth with what comes later.
    """
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=BYTES, hidden_size=16, **LAYERS))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 100, encoding="utf-8")
    return str(path)


def spec(tmp_path: Path, text: str, teacher: str, **changes: Any) -> RunSpec:
    small = {
        "preset": "tiny",
        "max_steps": 2,
        "disable_tqdm": True,
        "num_evaluations": 1,
        "checkpoint_every": 0,
    }
    return RunSpec.of(
        **{**small, "dataset": text, "teacher": teacher, "output_dir": tmp_path / "run", **changes}
    )


def by_hand(logits: torch.Tensor, targets: torch.Tensor, soft: torch.Tensor, weight: float) -> float:
    """(1 − w) CE + w KL, one target after another."""
    total, count = 0.0, 0
    for row, target, said in zip(logits, targets, soft, strict=True):
        if target == -100:
            continue
        q, p = row.double().softmax(0), said.double().exp()
        total += float((1 - weight) * -q[target].log() + weight * (p * (p / q).log()).sum())
        count += 1
    return total / count


def test_the_loss_is_a_share_of_cross_entropy_and_of_the_divergence_from_the_teacher():
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 5), torch.tensor([1, -100, 0, 4, -100, 2])
    soft = torch.randn(6, 5).log_softmax(-1)
    assert answer_loss(logits, targets, soft, 0.3).item() == pytest.approx(
        by_hand(logits, targets, soft, 0.3), rel=1e-5
    )
    assert torch.equal(answer_loss(logits, targets, soft, 0.0), answer_loss(logits, targets, None, 0.7))
    assert answer_loss(logits, torch.full((6,), -100), soft, 0.3) == 0
    same = answer_loss(soft, targets, soft, 1.0)
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_bptt_learns_from_what_the_teacher_says_of_each_token():
    batch = random_batch(3, 8)
    soft = torch.randn(3, 8, 11).log_softmax(-1)
    model = tiny_student()
    loss, _ = bptt_loss(model, {**batch, "soft_targets": soft}, 0.4)
    logits = model(batch["input_ids"]).logits
    wanted = by_hand(logits.detach().flatten(0, 1), batch["shift_labels"].flatten(), soft.flatten(0, 1), 0.4)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("timestep", [-1, 5])
def test_the_readout_of_smt_and_dmt_hears_the_teacher_at_its_own_timesteps(timestep):
    """All but one timestep have the student's own distribution: only there may the loss and KL be apart."""
    batch, model, teacher = random_batch(3, 10), tiny_student(), tiny_teacher()
    batch["shift_labels"] = batch["shift_labels"].clamp(min=0)
    first = max(timestep, -1)
    labels = range(first, first + 3)
    memories = teacher.encode(batch["input_ids"], list(labels))
    said = torch.full((3, 10, 11), torch.nan)
    for column, t in enumerate(labels):
        if t >= 0:
            said[:, t] = teacher.decode(memories[:, column]).log_softmax(-1).detach()[:, 0]
    options = {"timestep": timestep, "num_labels": 3, "prediction_weight": 0, "dynamics_weight": 0}
    options |= {"uniformity_weight": 0, "trunk_weight": 0, "teacher_weight": 1.0}
    loss, _ = smt_loss(model, teacher, {**batch, "soft_targets": said}, **options)
    assert loss.item() == pytest.approx(0, abs=1e-5)  # elsewhere it is NaN

    soft = torch.randn(3, 10, 11).log_softmax(-1)
    moved = soft.clone()
    moved[:, : timestep + 1] = torch.nan
    moved[:, timestep + 1 + 4 :] = torch.nan
    losses = [
        dmt_loss(model, teacher, {**batch, "soft_targets": one}, timestep, 4, teacher_weight=0.5)[0].item()
        for one in (soft, moved)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_any_family_becomes_the_teacher_by_its_folder_alone(tmp_path, text, family):
    teacher = save_teacher(tmp_path / "teacher", causal_lm(family))
    trainer = build(spec(tmp_path, text, teacher, method="bptt"))
    before = {name: value.clone() for name, value in trainer.soft_targets.model.state_dict().items()}
    record = trainer.train()
    assert record.final["loss"] > 0 and record.spec["teacher"] == teacher
    assert trainer.model.config.vocab_size == BYTES
    after = trainer.soft_targets.model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert not (tmp_path / "run" / "teacher").exists()


def test_what_it_says_is_its_distribution_over_the_students_ids():
    model = causal_lm("gpt2").eval()
    ids = torch.randint(0, BYTES, (2, 9))
    said = SoftTargets(model, BYTES)(ids)
    assert said.exp().sum(-1).allclose(torch.ones(2, 9))
    for t in range(9):
        alone = model(ids[:, : t + 1]).logits[:, -1, :BYTES].log_softmax(-1)
        torch.testing.assert_close(said[:, t], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight", [0.5, 0.0])
def test_labels_come_from_the_hidden_states_of_any_family_read_once_a_step(tmp_path, text, family, weight):
    teacher = save_teacher(tmp_path / "teacher", causal_lm(family))
    changes = {"encoder_type": "given", "teacher_weight": weight, "max_steps": 4, "bptt_fraction": 0.25}
    trainer = build(spec(tmp_path, text, teacher, dmt_fraction=0.25, **changes))
    given = trainer.soft_targets.model
    before = {name: value.clone() for name, value in given.state_dict().items()}
    projection = trainer.teacher.projection.weight.clone()
    rows: list[int] = []
    given.register_forward_hook(lambda _module, _args, options, _out: rows.append(len(options["input_ids"])),
                                with_kwargs=True)  # fmt: skip
    trainer.train()
    # Two steps of SMT, one of DMT and one of BPTT, which asks for the distribution alone.
    assert rows.count(trainer.args.batch_size) == (4 if weight else 3)
    assert [name for name in before if not torch.equal(before[name], given.state_dict()[name])] == []
    assert not torch.equal(projection, trainer.teacher.projection.weight)
    saved = SMTTeacher.from_pretrained(tmp_path / "run" / "teacher")
    assert saved.config.base_model_name_or_path == teacher and saved.given is None
    ids = torch.randint(0, BYTES, (1, 6))
    assert torch.equal(saved.encode(ids, [-1, 3, 5]), trainer.teacher.eval().encode(ids, [-1, 3, 5]))


def test_labels_are_those_of_their_own_model_whoever_says_the_soft_targets(tmp_path):
    """The pass is shared where both are one model, and only there."""
    batch = random_batch(2, 12)
    losses = []
    for others in (True, False):
        teacher = tiny_teacher("given")
        said = SoftTargets(tiny_llama(seed=9), 11) if others else teacher.given
        objective = Objective(tiny_student(), teacher, tiny_arguments(tmp_path, teacher_weight=0.5), said)
        losses.append(objective("smt", batch, timestep=3, num_labels=3)[1]["dynamics_loss"])
    assert torch.equal(*losses)


def test_a_teacher_that_was_loaded_is_checked_as_a_new_one(tmp_path):
    bert = save_teacher(tmp_path / "bert", masked_lm())
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    SMTTeacher.from_causal_lm(bert, vocab_size=11, context_length=12, future_length=4, **sizes).save_pretrained(
        tmp_path / "teacher"
    )
    loaded = SMTTeacher.from_pretrained(tmp_path / "teacher")
    student = tiny_student(intermediate_size=64)
    with pytest.raises(ValueError, match="sees the tokens that it is to predict"):
        SMTPretrainer(student, loaded, tiny_arguments(tmp_path / "run"), Stream())
    loaded = SMTTeacher.from_pretrained(tmp_path / "teacher")
    loaded.config.trunk_size = 95
    with pytest.raises(
        ValueError, match=r"states of .* numbers, and this teacher maps 95; give the model that"
    ):
        loaded.encode(torch.zeros(1, 4, dtype=torch.long), [2])


def test_what_cannot_be_given_is_refused_by_from_causal_lm(tmp_path):
    with pytest.raises(
        ValueError, match="is BertModel, which predicts no tokens; give a causal language model"
    ):
        SMTTeacher.from_causal_lm(BertModel(BertConfig(vocab_size=BYTES, hidden_size=16, **LAYERS)))
    with pytest.raises(ValueError, match="encoder_type is 'causal'; of a given model it must be 'given'"):
        SMTTeacher.from_causal_lm(causal_lm("gpt2"), encoder_type="causal")
    SMTTeacher.from_causal_lm(causal_lm("gpt2"), hidden_size=16).save_pretrained(tmp_path)
    loaded = SMTTeacher.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"had no folder; give it anew: teacher\.given = SoftTargets"):
        loaded.encode(torch.zeros(1, 4, dtype=torch.long), [2])


def test_a_run_does_not_go_on_with_other_weights_of_its_teacher(tmp_path, text):
    teacher = save_teacher(tmp_path / "teacher", causal_lm("llama"))
    build(spec(tmp_path, text, teacher, method="bptt", checkpoint_every=1)).train()
    record = RunRecord.read(tmp_path / "run")
    assert record is not None and record.teacher_fingerprint == SoftTargets(causal_lm("llama"), 9).fingerprint
    (tmp_path / "run" / "run.json").write_text(
        (tmp_path / "run" / "run.json").read_text().replace('"finished"', '"running"')
    )
    model = causal_lm("llama")
    model.lm_head.weight.data[0] += 1
    save_teacher(tmp_path / "teacher", model)
    with pytest.raises(ValueError, match="teacher_fingerprint"):
        build(spec(tmp_path, text, teacher, method="bptt", checkpoint_every=1)).train(resume=True)


def test_a_run_goes_on_where_its_teacher_and_its_text_have_moved(tmp_path, text):
    given = {"checkpoint_every": 2, "save_total_limit": 1, "encoder_type": "given"}

    def settings(teacher: Path, corpus: Path) -> RunSpec:
        return spec(tmp_path, str(corpus), str(teacher), **given)

    teacher, corpus = Path(save_teacher(tmp_path / "teacher", causal_lm("llama"))), Path(text)
    build(settings(teacher, corpus)).train()
    teacher, corpus = teacher.rename(tmp_path / "moved"), corpus.rename(tmp_path / "moved.txt")
    assert build(settings(teacher, corpus).changed(max_steps=4)).train(resume=True).steps == 4
    corpus.write_text("another text. " * 400, encoding="utf-8")
    with pytest.raises(ValueError, match="data_fingerprint"):
        build(settings(teacher, corpus).changed(max_steps=6)).train(resume=True)


def test_smt_and_dmt_train_with_a_given_teacher_too(tmp_path, text):
    teacher = save_teacher(tmp_path / "teacher", causal_lm("llama"))
    plain = build(spec(tmp_path, text, teacher, output_dir=tmp_path / "a", max_steps=4, teacher_weight=0.0))
    heard = build(spec(tmp_path, text, teacher, output_dir=tmp_path / "b", max_steps=4, teacher_weight=1.0))
    losses = [trainer.train().final["loss"] for trainer in (plain, heard)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("make", "changes", "said"),
    [
        (lambda: T5ForConditionalGeneration(T5Config(vocab_size=BYTES, d_model=16, d_ff=16, num_layers=1)), {},
         "'t5', which is no causal language model"),
        (lambda: BertModel(BertConfig(vocab_size=BYTES, hidden_size=16, **LAYERS)), {}, "no weights for"),
        (masked_lm, {}, "sees the tokens that it is to predict; give a causal language model"),
        (lambda: causal_lm("llama"), {"sequence_length": 100}, "reads 64 tokens, and sequence_length is 100"),
        (lambda: causal_lm("gpt2"), {"tokenizer": "example"}, "has another one; leave tokenizer out"),
        (lambda: causal_lm("gpt2"), {"dataset": "retrieval"}, "is no text; leave teacher out"),
        (masked_lm, {"encoder_type": "given", "teacher_weight": 0.0}, "sees the tokens that it is to predict"),
        (lambda: causal_lm("gpt2"), {"encoder_type": "given", "trunk_fraction": 0.2}, "no trunk that learns"),
        (lambda: causal_lm("gpt2"), {"encoder_type": "given", "teacher": None}, "there is no teacher; name"),
    ],
    ids=["encoder-decoder", "encoder only", "masked", "too long", "another tokenizer", "no text",
         "masked, for labels", "a trunk to learn", "none"],
)  # fmt: skip
def test_a_teacher_that_cannot_teach_is_refused_before_any_work(tmp_path, text, make, changes, said):
    teacher = save_teacher(tmp_path / "teacher", make())
    with pytest.raises(ValueError, match=said):
        build(spec(tmp_path, text, **{"teacher": teacher, **changes}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["ln_f", "wte"])
def test_a_teacher_that_answers_nan_is_refused(tmp_path, text, part):
    broken = causal_lm("gpt2")
    torch.nn.init.constant_(getattr(broken.transformer, part).weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        build(spec(tmp_path, text, save_teacher(tmp_path / "teacher", broken)))


def test_rounding_is_not_taken_for_a_look_ahead():
    model = causal_lm("llama").to(torch.bfloat16)
    said = SoftTargets(model, BYTES)
    answer = model.forward

    def rounded(**options: Any) -> Any:
        outputs = answer(**options)
        outputs.logits = outputs.logits * (1 + 0.004 * torch.randn_like(outputs.logits))
        return outputs

    model.forward = rounded
    said.check(torch.arange(40))


def rewrite(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **fields}), encoding="utf-8")


DAMAGE = {
    "an empty folder": (lambda folder: [path.unlink() for path in folder.iterdir()], "has no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "in the format safetensors"),
    "weights as pickles": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "in the format safetensors",
    ),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"{"), "cannot be loaded"),
    "no tokenizer": (lambda folder: [path.unlink() for path in folder.glob("token*")], "has no tokenizer"),
    "an unknown type": (
        lambda folder: rewrite(folder, model_type="own"),
        "is of type 'own', which transformers does not know; give a causal",
    ),
    "the teacher of a run": (
        lambda folder: tiny_teacher().save_pretrained(folder),
        "is of type 'smt_teacher', which transformers does not know; give a causal",
    ),
    "code of its own": (
        lambda folder: rewrite(folder, model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "needs code of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_folder_that_is_no_whole_model_is_refused_by_its_name(tmp_path, text, case):
    teacher = save_teacher(tmp_path / "teacher", causal_lm("gpt2"))
    damage, said = DAMAGE[case]
    damage(Path(teacher))
    with pytest.raises(ValueError, match=said) as refusal:
        build(spec(tmp_path, text, teacher))
    assert str(refusal.value).startswith(f"teacher {teacher!r} ") and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "is no folder and was not downloaded before, and the Hub does not answer"),
        ("no-such/teacher", "is no folder and was not downloaded before, and the Hub does not answer"),
        ("runs/no/where", "is neither a folder nor a repository"),
        ("byte", "is no folder"),
        ("text.txt", "is a file; give the folder"),
    ],
)
def test_a_name_that_leads_to_no_model_is_refused_as_a_teacher(tmp_path, text, name, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"^teacher '{name}' {said}"):
        build(spec(tmp_path, text, name))


def test_the_trunk_s_phase_asks_nothing_of_a_given_model(tmp_path, text, monkeypatch):
    asked: list[int] = []
    trainer = build(spec(tmp_path, text, "example", max_steps=4, trunk_fraction=0.5, dmt_fraction=0.25))
    said = trainer.soft_targets
    assert said is not None
    read = SoftTargets._read

    def counted(self: SoftTargets, input_ids: torch.Tensor, **options: Any) -> Any:
        asked.append(len(input_ids))
        return read(self, input_ids, **options)

    monkeypatch.setattr(SoftTargets, "_read", counted)
    trainer.train()
    assert len(asked) == 2  # a step of SMT and one of DMT


def test_a_fingerprint_holds_for_the_next_version_of_transformers(monkeypatch):
    before = SoftTargets(causal_lm("llama")).fingerprint
    monkeypatch.setattr("transformers.configuration_utils.__version__", "99.0.0")
    assert SoftTargets(causal_lm("llama")).fingerprint == before
