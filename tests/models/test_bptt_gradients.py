"""Training by labels: gradients reach every parameter, and go back through time as far as they should."""

import copy

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, VOCAB, random_ids, tiny_model

from smt_hf import SMTForCausalLM
from smt_hf.models import reading


def gradients(model: SMTForCausalLM, ids: torch.Tensor, **inputs) -> dict[str, torch.Tensor]:
    """The loss and the gradient of every parameter, by name; one that has none is left out."""
    model.zero_grad()
    loss = model(ids, labels=ids, **inputs).loss
    loss.backward()
    named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **named}


def reach(model: SMTForCausalLM, length: int) -> torch.Tensor:
    """(length, length) bool: does the gradient of the logits at t reach the embedding of token s?"""
    embeds = model.get_input_embeddings()(random_ids(1, length)).detach().requires_grad_()
    weights = torch.randn(VOCAB)
    logits = model(inputs_embeds=embeds).logits[0] @ weights
    rows = [torch.autograd.grad(logits[t], embeds, retain_graph=True)[0][0] for t in range(length)]
    return torch.stack(rows).abs().amax(-1) > 0


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_every_parameter_gets_a_gradient_from_labels(cell):
    model = tiny_model(cell).train()
    found = gradients(model, random_ids(2, 6))
    dead = [name for name, _ in model.named_parameters() if not found.get(name, torch.zeros(1)).any()]
    assert dead == []


@pytest.mark.parametrize("truncation", [1, 3])
def test_every_parameter_gets_a_gradient_under_truncation_too(truncation):
    """Also the initial memory: the first block of tokens starts from it, nothing is behind it to cut."""
    model = tiny_model(bptt_truncation=truncation).train()
    found = gradients(model, random_ids(2, 7))
    dead = [name for name, _ in model.named_parameters() if not found.get(name, torch.zeros(1)).any()]
    assert dead == []


def test_gradients_equal_finite_differences():
    model = tiny_model("gru").train()
    ids = random_ids(2, 6)
    found = gradients(model, ids)
    for name in ("model.initial_memory", "model.cell.hidden_proj.0.weight", "model.cell.input_proj.weight"):
        parameter = model.get_parameter(name)
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        losses = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                moved = copy.deepcopy(model)
                moved.get_parameter(name).add_(step * direction)
                losses.append(moved(ids, labels=ids).loss.double())
        slope = (losses[0] - losses[1]) / 2e-2
        expected = (found[name] * direction).sum().double()
        torch.testing.assert_close(slope, expected, rtol=5e-2, atol=2e-4)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_without_truncation_the_gradient_reaches_every_earlier_token_and_no_later_one(cell):
    expected = torch.ones(6, 6, dtype=torch.bool).tril()
    assert torch.equal(reach(tiny_model(cell).train(), 6), expected)


@pytest.mark.parametrize("truncation", [1, 3])
def test_truncation_cuts_the_gradient_between_blocks_and_nowhere_else(truncation):
    position = torch.arange(8)
    block = position // truncation
    expected = (block[:, None] == block[None]) & (position[:, None] >= position[None])
    assert torch.equal(reach(tiny_model(bptt_truncation=truncation).train(), 8), expected)


def test_truncation_only_concerns_training():
    expected = torch.ones(6, 6, dtype=torch.bool).tril()
    assert torch.equal(reach(tiny_model(bptt_truncation=2).eval(), 6), expected)


def test_truncation_changes_no_logits():
    ids = random_ids(2, 8)
    model = tiny_model().train()
    whole = model(ids).logits
    model.config.bptt_truncation = 3
    assert torch.equal(model(ids).logits, whole)


@pytest.mark.parametrize("truncation", [None, 3])
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_checkpointing_gives_the_same_loss_and_gradients(cell, truncation, monkeypatch):
    monkeypatch.setattr(reading, "CHECKPOINT_CHUNK", 4)  # no multiple of the truncation
    model = tiny_model(cell, bptt_truncation=truncation).train()
    ids, mask = random_ids(2, 11), torch.ones(2, 11, dtype=torch.long)
    mask[0, :5] = 0
    plain = gradients(model, ids, attention_mask=mask)
    model.activation_checkpointing_enable()
    steps: list[int] = []
    model.model.cell.register_forward_hook(lambda *_: steps.append(1))
    checkpointed = gradients(model, ids, attention_mask=mask)
    assert len(steps) == 2 * 11  # each step was computed again on the way back
    assert checkpointed.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, msg=name)


def test_padding_gets_no_gradient():
    model = tiny_model().train()
    embeds = torch.randn(1, 6, 16, requires_grad=True)
    mask = torch.tensor([[0, 0, 1, 1, 0, 1]])
    model(inputs_embeds=embeds, attention_mask=mask).logits[0, -1, 0].backward()
    assert embeds.grad is not None
    assert torch.equal(embeds.grad[0].abs().amax(-1) > 0, mask[0].bool())


def test_ignored_labels_give_no_gradient():
    model = tiny_model().train()
    ids = random_ids(2, 6)
    labels = ids.clone()
    labels[1] = -100
    model(ids, labels=labels).loss.backward()
    weight = model.get_input_embeddings().weight
    both = weight.grad.clone()
    model.zero_grad()
    model(ids[:1], labels=ids[:1]).loss.backward()
    torch.testing.assert_close(both, weight.grad)


def test_a_few_steps_of_training_lower_the_loss():
    model = tiny_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = random_ids(4, 12)
    losses = []
    for _ in range(15):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def bytes_kept_for_backward(model: SMTForCausalLM, ids: torch.Tensor) -> int:
    """Of all tensors that autograd holds at the end of a forward, each storage once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(ids, labels=ids).loss
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_checkpointing_keeps_little_more_than_the_memories_and_truncation_keeps_all(cell, monkeypatch):
    monkeypatch.setattr(reading, "CHECKPOINT_CHUNK", 8)

    def per_token(**how) -> float:
        model = tiny_model(cell, bptt_truncation=how.get("truncation")).train()
        if how.get("checkpointing"):
            model.activation_checkpointing_enable()
        kept = [bytes_kept_for_backward(model, random_ids(2, length)) for length in (32, 96)]
        return (kept[1] - kept[0]) / 64 / 2

    plain = per_token()
    assert per_token(checkpointing=True) < plain / 5
    assert per_token(truncation=8) > 0.9 * plain
