"""`output_hidden_states`: all timesteps of every layer in every mode, on the way to the logits."""

from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, TOKENS, WIDTH, generate, memory_of, pad, random_ids, tiny_model

from smt_hf.models import reading

LENGTH = 9
MODES: dict[str, dict[str, Any]] = {
    "all logits": {},
    "one logit": {"logits_to_keep": 1},
    "some logits": {"logits_to_keep": 4},
    "named logits": {"logits_to_keep": torch.tensor([7, 0, 3])},
    "no state": {"use_cache": False},
}


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("where", ["argument", "config"])
@pytest.mark.parametrize("mode", MODES)
def test_they_have_full_length_on_both_classes_in_every_mode(mode, where, layers, gradient, monkeypatch):
    monkeypatch.setattr(reading, "READ_CHUNK", 4)
    model, ids = tiny_model(num_hidden_layers=layers), random_ids(2, LENGTH)
    memories = [memory_of(model(ids[:, : n + 1]).cache) for n in range(LENGTH)]
    embeds, read = model.get_input_embeddings()(ids), model.model(ids).last_hidden_state
    model.config.output_hidden_states = where == "config"
    keywords: dict[str, Any] = {"output_hidden_states": True} if where == "argument" else {}
    for each in (model, model.model):
        plain = each(ids, **MODES[mode], output_hidden_states=False)
        assert plain.hidden_states is None
        with torch.set_grad_enabled(gradient):
            found = each(ids, **MODES[mode], **keywords)
        assert [states.shape for states in found.hidden_states] == [(2, LENGTH, WIDTH)] * (layers + 1)
        torch.testing.assert_close(found[0], plain[0])
        torch.testing.assert_close(found.hidden_states[0], embeds)
        torch.testing.assert_close(found.hidden_states[-1], read)
        for layer, states in enumerate(found.hidden_states[1:-1]):
            last = TOKENS // layers * (layer + 1) - 1  # a stacked layer has its share of the memory
            torch.testing.assert_close(states, torch.stack([m[:, last] for m in memories], dim=1))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_each_of_them_keeps_its_gradient(cell, mode, checkpointing, monkeypatch):
    monkeypatch.setattr(reading, "CHECKPOINT_CHUNK", 4)
    model, ids = tiny_model(cell).train(), random_ids(2, LENGTH)
    if checkpointing:
        model.activation_checkpointing_enable()
    for each in (model, model.model):
        found = each(ids, output_hidden_states=True, **MODES[mode])
        for states in found.hidden_states:
            states.retain_grad()
        found[0].square().sum().backward()
        for states in found.hidden_states:
            assert states.grad is not None and states.grad.any()


@pytest.mark.parametrize("cell", ["transformer", "mlp"])
def test_a_cell_with_more_layers_than_memory_tokens_has_them_too(cell):
    model, ids = tiny_model(cell, num_hidden_layers=3, num_memory_tokens=1), random_ids(2, 4)
    found = model(ids, output_hidden_states=True)
    assert [states.shape for states in found.hidden_states] == [(2, 4, WIDTH)] * 4
    torch.testing.assert_close(found.logits, model(ids).logits)


def test_they_have_the_dtype_of_the_weights():
    model: Any = tiny_model().bfloat16()
    for gradient in (False, True):
        with torch.set_grad_enabled(gradient):
            found = model(random_ids(1, 3), output_hidden_states=True).hidden_states
        assert {states.dtype for states in found} == {torch.bfloat16}


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}, {"use_cache": False}]
)
@torch.no_grad()
def test_generate_returns_those_of_every_token(options):
    model = tiny_model()
    model.generation_config.pad_token_id = 0
    ids, mask = pad([random_ids(5), random_ids(3)], "left")
    if "prompt_lookup_num_tokens" in options:
        ids, mask = ids[:1], mask[:1]
    found = generate(
        model, ids, attention_mask=mask, max_new_tokens=4, do_sample=False, return_dict_in_generate=True,
        output_hidden_states=True, **options,
    )  # fmt: skip
    rows = len(ids) * options.get("num_beams", 1)
    assert all(len(states) == model.config.num_hidden_layers + 1 for states in found.hidden_states)
    if options:
        assert found.hidden_states[0][-1].shape == (rows, 5, WIDTH)
        return
    read = torch.cat([states[-1] for states in found.hidden_states], dim=1)
    longer = torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], dim=1)
    whole = model.model(found.sequences[:, :-1], attention_mask=longer).last_hidden_state
    torch.testing.assert_close(read, whole)
