"""Fine-tuning with `transformers.Trainer`: the losses and gradients are those computed by hand."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from tiny_models import VOCAB, memory_of, random_ids, tiny_model
from transformers import Trainer, TrainingArguments

from smt_hf import SMTForCausalLM

ROWS, LENGTH = 8, 12


@pytest.fixture(autouse=True)
def no_state_left_behind() -> Iterator[None]:
    """Accelerate remembers the precision of the first Trainer of a process, and refuses another."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def rows() -> list[dict[str, torch.Tensor]]:
    ids = random_ids(ROWS, LENGTH)
    labels = ids.clone()
    labels[::2, :5] = -100  # rows with different numbers of targets
    return [{"input_ids": x, "labels": y} for x, y in zip(ids, labels, strict=True)]


def trained(folder: Path, model: SMTForCausalLM, **changes: Any) -> Trainer:
    """One optimizer step of plain SGD on all rows, so that weights show the gradient."""
    options: dict[str, Any] = dict(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=ROWS, learning_rate=0.1, optim="sgd",
        lr_scheduler_type="constant", max_grad_norm=0.0, report_to="none", save_strategy="no", use_cpu=True,
        disable_tqdm=True, logging_steps=1, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model=model, args=TrainingArguments(**{**options, **changes}), train_dataset=rows())
    trainer.train()
    return trainer


def stack(name: str) -> torch.Tensor:
    return torch.stack([row[name] for row in rows()])


def test_one_step_moves_the_weights_by_the_gradient_of_the_mean_loss(tmp_path):
    model, twin = tiny_model(), tiny_model()
    trainer = trained(tmp_path, model)
    logits = twin(stack("input_ids")).logits[:, :-1].reshape(-1, VOCAB)
    loss = torch.nn.functional.cross_entropy(logits, stack("labels")[:, 1:].reshape(-1))
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-3)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"activation_checkpointing": True},
    ],
    ids=["accumulation", "checkpointing"],
)
def test_accumulation_and_checkpointing_give_the_step_of_the_whole_batch(tmp_path, changes):
    model, twin = tiny_model(), tiny_model()
    trained(tmp_path / "a", model, **changes)
    trained(tmp_path / "b", twin)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def smoothed(scores: torch.Tensor, targets: torch.Tensor, factor: float) -> float:
    """(1 − ε) · cross-entropy + ε · cross-entropy with the uniform distribution, over the real targets."""
    real = targets != -100
    hit = -scores.gather(-1, targets.clamp(min=0)[..., None])[..., 0][real].mean()
    return ((1 - factor) * hit - factor * scores.mean(-1)[real].mean()).item()


def test_label_smoothing_compares_each_token_with_the_one_after_it(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        scores = model(stack("input_ids")).logits.log_softmax(-1)
    labels = stack("labels")
    expected = smoothed(scores[:, :-1], labels[:, 1:], 0.2)
    trainer = trained(tmp_path, model, label_smoothing_factor=0.2)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-3)
    assert abs(expected - smoothed(scores, labels, 0.2)) > 5e-3  # what it would be with no shift


def test_truncation_cuts_the_gradient_where_it_says():
    model = tiny_model(bptt_truncation=4).train()
    embeds = model.get_input_embeddings()(random_ids(1, 10)).detach().requires_grad_()
    model(inputs_embeds=embeds).logits[:, 9].sum().backward()
    assert embeds.grad is not None
    assert (embeds.grad[0].abs().sum(-1) > 0).tolist() == [False] * 8 + [True] * 2


def test_bf16_training_keeps_the_state_in_float32_and_learns(tmp_path):
    model = tiny_model()
    trainer = trained(tmp_path, model, bf16=True, max_steps=20, learning_rate=0.5)
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0] - 0.1
    state = model(random_ids(1, 3), use_cache=True).cache  # Trainer switches the cache off
    assert memory_of(state).dtype == torch.float32


@pytest.mark.parametrize("place", ["in memory", "loaded"])
def test_states_work_after_a_trainer_which_switches_the_cache_off_in_the_config(place, tmp_path):
    """All that docs/states.md and its example do, with a model as `Trainer` leaves it."""
    model: Any = tiny_model()
    trainer = trained(tmp_path, model)
    if place == "loaded":
        trainer.save_model(str(tmp_path / "trained"))
        model = SMTForCausalLM.from_pretrained(tmp_path / "trained")
    model.eval()
    assert model.config.use_cache is False
    prompt, more, file = random_ids(1, 6), random_ids(2, 3, seed=2), tmp_path / "state.safetensors"
    with torch.no_grad():
        state = model(prompt, logits_to_keep=1, use_cache=True).cache
        assert memory_of(model(prompt, cache=model.prefill(prompt[:, :2]).cache).cache) is not None
    model.save_state(state, file)
    state = model.load_state(file)
    state.batch_repeat_interleave(2)
    seen = torch.ones(2, 9, dtype=torch.long)
    options: dict[str, Any] = dict(max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    output = model.generate(more, attention_mask=seen, cache=state, **options)
    model.save_state(output.cache, tmp_path / "later.safetensors")
    turn = torch.cat([output.sequences[:, -1:], more], dim=1)
    state = model.load_state(tmp_path / "later.safetensors")
    seen = torch.ones(2, state.get_seq_length() + 4, dtype=torch.long)
    again = model.generate(turn, attention_mask=seen, cache=state, **options)
    with torch.no_grad():
        text = torch.cat([prompt.expand(2, -1), output.sequences[:, :-1], again.sequences[:, :-1]], dim=1)
        torch.testing.assert_close(memory_of(again.cache), memory_of(model(text, use_cache=True).cache))
    fork = copy.deepcopy(output.cache)
    fork.batch_select_indices(torch.tensor([1]))
    fork.reorder_cache(torch.tensor([0]))
    assert memory_of(model(more[:1], cache=fork).cache).shape[0] == 1  # a state that is given comes back
