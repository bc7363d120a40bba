"""Reading a prompt takes the memory of a chunk, however long the prompt is: the largest tensor that is made."""

from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, generate, memory_of, random_ids, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from smt_hf.models import reading

CHUNK = 8


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operation made; views are not made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)
        }
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return made


def largest_of(function: Any, *args: Any, **kwargs: Any) -> int:
    with Largest() as largest:
        function(*args, **kwargs)
    return largest.bytes


def recording_state(model: Any) -> Any:
    state = DynamicCache(config=model.config)
    state.activate_past_recording()
    return state


WAYS: dict[str, Any] = {
    "forward": lambda model, ids: model(ids, logits_to_keep=1),
    "forward of the base model": lambda model, ids: model.model(ids, logits_to_keep=1),
    "named logits": lambda model, ids: model(ids, logits_to_keep=torch.tensor([5, 0])),
    "embeddings": lambda model, ids: model(
        inputs_embeds=torch.zeros(1, 1, 16).expand(1, ids.shape[1], 16), logits_to_keep=1
    ),
    "mask": lambda model, ids: model(ids, attention_mask=torch.ones_like(ids), logits_to_keep=1),
    "documents": lambda model, ids: model(ids, position_ids=torch.arange(ids.shape[1])[None], logits_to_keep=1),
    "training mode": lambda model, ids: model.train()(ids, logits_to_keep=1),
    "generate": lambda model, ids: generate(model, ids, max_new_tokens=2, do_sample=False),
    "beam search": lambda model, ids: generate(model, ids, max_new_tokens=2, do_sample=False, num_beams=2),
    "prefill": lambda model, ids: model.prefill(ids, chunk=CHUNK, max_sweeps=2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_the_largest_tensor_does_not_grow_with_the_prompt(cell, way, monkeypatch):
    monkeypatch.setattr(reading, "READ_CHUNK", CHUNK)
    model = tiny_model(cell)
    found = [largest_of(WAYS[way], model, random_ids(1, length)) for length in (CHUNK, 4 * CHUNK)]
    assert found[1] == found[0]


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_all_logits_cost_no_more_than_they_are(cell, monkeypatch):
    monkeypatch.setattr(reading, "READ_CHUNK", CHUNK)
    model, ids = tiny_model(cell), random_ids(1, 16 * CHUNK)
    assert largest_of(model, ids) == 4 * 16 * CHUNK * model.config.vocab_size


@torch.no_grad()
def test_a_state_that_can_go_back_holds_what_it_can_go_back_to_and_no_more(monkeypatch):
    monkeypatch.setattr(reading, "READ_CHUNK", CHUNK)
    model = tiny_model()
    found = []
    for length in (160, 480):
        state = recording_state(model)
        found.append(largest_of(model, random_ids(1, length), cache=state, logits_to_keep=1))
        held = state.layers[0].history
        assert held.untyped_storage().nbytes() == held.nbytes
    assert found[1] == found[0]


@pytest.mark.parametrize("keep", [0, 1, 7, 23, torch.tensor([22, 3, 3, 0, -1]), torch.arange(23) % 2 == 0])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_chunks_change_no_answer(cell, keep, monkeypatch):
    model, ids = tiny_model(cell), random_ids(2, 23)
    inputs = {"attention_mask": torch.ones_like(ids), "position_ids": (torch.arange(23) % 9)[None]}
    inputs["attention_mask"][0, :4] = 0
    whole = model(ids, **inputs)
    expected = whole.logits[:, -keep:] if isinstance(keep, int) else whole.logits[:, keep]
    for size in (1, 4, 23, 100):
        monkeypatch.setattr(reading, "READ_CHUNK", size)
        with torch.no_grad():
            found = model(ids, **inputs, logits_to_keep=keep)
        torch.testing.assert_close(found.logits, expected)
        torch.testing.assert_close(memory_of(found.cache), memory_of(whole.cache))


@pytest.mark.parametrize("size", [4, 100])
def test_no_timestep_may_be_named(size, monkeypatch):
    monkeypatch.setattr(reading, "READ_CHUNK", size)
    with torch.no_grad():
        assert (
            tiny_model()(random_ids(2, 9), logits_to_keep=torch.tensor([], dtype=torch.long)).logits.shape[1]
            == 0
        )


def test_with_a_gradient_all_inputs_are_projected_at_once():
    """As before: training is as fast as it was."""
    model = tiny_model()
    calls: list[int] = []
    model.model.cell.input_proj.register_forward_hook(lambda *_: calls.append(1))
    model(random_ids(1, 2 * reading.READ_CHUNK))
    assert calls == [1]
