# Keyword dictionaries of mixed values.
# mypy: disable-error-code="arg-type"
"""trl trains our model: packed rows as their documents alone, and distillation by what the student writes."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState, GradientState
from tiny_checkpoints import GUIDE, byte_ids, cell_layers_pattern, needs, save_checkpoint, tiny_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from smt_hf import SMTForCausalLM
from smt_hf.data import byte_tokenizer

pytestmark = needs("trl")

PROMPTS = ("The first", "A", "Once more, with")
DOCUMENTS = ("The first one.", "A", "Once more, with more words.", "End", "Yet another, of middling length")
BATCHES: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "max_length": 48},
    "packed and checkpointed": {"packing": True, "max_length": 48, "activation_checkpointing": True},
    "padding-free": {"padding_free": True, "max_length": None},
    "padded": {"max_length": None},
}


@pytest.fixture(autouse=True)
def no_state_left_behind() -> Iterator[None]:
    """Accelerate remembers the first Trainer of a process, and refuses another precision."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def options_for(folder: Path) -> dict[str, Any]:
    """One step of plain SGD on all rows at once, so that weights show the gradient."""
    return dict(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=8, per_device_eval_batch_size=8,
        learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, bf16=False,
        activation_checkpointing=False, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        logging_steps=1, dataloader_pin_memory=False,
    )  # fmt: skip


def sft_trainer(folder: Path, model: Any, peft_config: Any = None, **changes: Any) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict({"input_ids": [list(text.encode()) for text in DOCUMENTS]})
    return SFTTrainer(
        model=model, args=SFTConfig(**options_for(folder) | changes), train_dataset=data, eval_dataset=data,
        processing_class=byte_tokenizer(), peft_config=peft_config,
    )  # fmt: skip


def loss_of_the_documents_alone(model: SMTForCausalLM) -> torch.Tensor:
    """Cross-entropy per target over documents that were read one by one, each from the empty memory."""
    losses = []
    for ids in map(byte_ids, DOCUMENTS):
        if ids.shape[1] > 1:  # a single token has nothing to predict
            losses.append(F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_a_step_is_that_of_the_documents_alone(tmp_path, cell, kind):
    model, twin = tiny_model(cell), tiny_model(cell).train()
    trainer = sft_trainer(tmp_path, model, **BATCHES[kind])
    seen: list[dict[str, Any]] = []
    model.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    trainer.train()
    loss = loss_of_the_documents_alone(twin)
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-4)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-4, atol=1e-6)
    rows = 5 if kind == "padded" else 1
    assert seen[0]["input_ids"].shape[0] == rows  # what was flattened really came as one row
    assert ("seq_idx" in seen[0]) == (kind != "padded")


def test_the_packed_evaluation_loss_is_that_of_the_documents_alone_and_leaking_would_show(tmp_path):
    model = tiny_model()
    trainer = sft_trainer(tmp_path, model, **BATCHES["packed"])
    with torch.no_grad():
        alone = loss_of_the_documents_alone(model).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(alone, abs=1e-5)
    forward = model.model.forward
    said = ("position_ids", "seq_idx", "cu_seq_lens_q")  # each of them tells where documents begin

    def leaking(*args, **kwargs):
        return forward(*args, **{name: value for name, value in kwargs.items() if name not in said})

    model.model.forward = leaking
    assert abs(trainer.evaluate()["eval_loss"] - alone) > 1e-3


@pytest.mark.skipif(find_spec("peft") is None, reason="peft not installed")
def test_adapters_train_on_packed_rows_and_the_model_beneath_stays(tmp_path):
    from peft import LoraConfig

    model, twin = tiny_model(), tiny_model()
    adapters = LoraConfig(r=2, target_modules=cell_layers_pattern())
    trainer = sft_trainer(tmp_path, model, adapters, **BATCHES["packed"], max_steps=30)
    trainer.train()
    first, *_, last = (line["loss"] for line in trainer.state.log_history if "loss" in line)
    assert last < first - 0.05
    trained = trainer.model.merge_and_unload()
    for (name, ours), theirs in zip(trained.named_parameters(), twin.parameters(), strict=True):
        adapted = ".cell." in name and name.endswith("weight")
        assert torch.equal(ours, theirs) != adapted, name


def tiny_llama(vocab_size: int = 258) -> LlamaForCausalLM:
    """A teacher that expects something: random, with logits large enough to tell bytes apart."""
    torch.manual_seed(1)
    teacher = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=256, eos_token_id=256, pad_token_id=257,
    ))  # fmt: skip
    with torch.no_grad():
        teacher.lm_head.weight.mul_(40)
    return teacher.eval()


def distillation_trainer(folder: Path, student: Any, **changes: Any) -> Any:
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    full = {"per_device_train_batch_size": len(PROMPTS)}  # trl drops a batch that is not
    options = {**options_for(folder), **full, "max_completion_length": 8, **changes}
    return DistillationTrainer(
        model=student, teacher_model=tiny_llama(), args=DistillationConfig(**options),
        train_dataset=Dataset.from_dict({"prompt": list(PROMPTS)}), processing_class=byte_tokenizer(),
    )  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_a_step_of_distillation_is_the_divergence_over_what_the_student_wrote(tmp_path, cell, checkpointing):
    """Each prompt and its answer alone, without padding, by hand; the answers are those that trl sampled."""
    student, twin, teacher = tiny_model(cell), tiny_model(cell).train(), tiny_llama()
    trainer = distillation_trainer(tmp_path, student, activation_checkpointing=checkpointing)
    batches: list[dict[str, Any]] = []
    prepare = trainer._prepare_inputs

    def seen(inputs: Any) -> dict[str, Any]:
        batches.append(prepare(inputs))
        return batches[-1]

    trainer._prepare_inputs = seen
    trainer.train()
    losses = []
    (batch,) = batches
    for row in range(len(PROMPTS)):
        prompt, answer = (
            batch[f"{part}_ids"][row][batch[f"{part}_mask"][row].bool()] for part in ("prompt", "completion")
        )
        assert bytes(prompt.tolist()).decode() in PROMPTS and len(answer)
        ids = torch.cat([prompt, answer])[None]
        mine = twin(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        theirs = teacher(ids).logits[0, len(prompt) - 1 : -1].detach().log_softmax(-1)
        losses.append((mine.exp() * (mine - theirs)).sum(-1))
    loss = torch.cat(losses).mean()
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-3)
    for (name, ours), hand in zip(student.named_parameters(), twin.parameters(), strict=True):
        assert hand.grad is not None, name
        torch.testing.assert_close(ours, hand - 0.1 * hand.grad, rtol=1e-4, atol=1e-5)


def test_distillation_brings_the_student_nearer_and_its_checkpoint_goes_on_writing(tmp_path):
    student = tiny_model()
    options = {"max_steps": 30, "optim": "adamw_torch", "learning_rate": 1e-2, "save_strategy": "steps"}
    trainer = distillation_trainer(tmp_path, student, **options, save_steps=30)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert sum(losses[-10:]) < sum(losses[:10]) - 2
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-30")
    for (name, ours), theirs in zip(student.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    ids = byte_ids(PROMPTS[0])
    one, other = (model.eval().generate(ids, max_new_tokens=5, do_sample=False) for model in (student, loaded))
    assert torch.equal(one, other)


def test_gkd_learns_from_given_answers_and_from_its_own(tmp_path):
    gkd = pytest.importorskip("trl.experimental.gkd")
    from datasets import Dataset

    rows = {"prompt": list(PROMPTS), "input_ids": [list(f"{prompt} is so".encode()) for prompt in PROMPTS]}
    options = {**options_for(tmp_path), "max_steps": 40, "optim": "adamw_torch", "learning_rate": 1e-2}
    trainer = gkd.GKDTrainer(
        model=tiny_model(), teacher_model=tiny_llama(), train_dataset=Dataset.from_dict(rows),
        args=gkd.GKDConfig(**options, max_new_tokens=8, lmbda=0.5), processing_class=byte_tokenizer(),
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert sum(losses[-10:]) < sum(losses[:10]) - 0.2


def test_the_distillation_of_the_guide_runs_as_written(tmp_path, monkeypatch):
    """Its teacher has a padded vocabulary, as teachers do."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(Path("runs/mine"), tiny_model())
    tiny_llama(vocab_size=300).save_pretrained("teachers/large")
    (section,) = re.findall(
        r"^## trl: distillation\n(.*?)^## ", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    exec(compile(snippet.replace("=64", "=4"), "finetuning.md", "exec"), {})
    before, after = (AutoModelForCausalLM.from_pretrained(f"runs/{name}") for name in ("mine", "distilled"))
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(old, new), name
