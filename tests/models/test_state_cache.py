"""The state: its bytes never grow, and it can be taken out, changed by rows, rolled back and gone on from."""

import copy
from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, TOKENS, WIDTH, is_one_sentence, memory_of, random_ids, tiny_model
from transformers import DynamicCache

from smt_hf import SMTForCausalLM


def tensors_held(thing: object, seen: set[int] | None = None) -> list[torch.Tensor]:
    """Every tensor that a cache and its layers keep alive, wherever it is put."""
    seen = set() if seen is None else seen
    parts: list[object]
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, (list, tuple)):
        parts = list(thing)
    else:
        parts = list(vars(thing).values()) if type(thing).__module__.startswith(("transf", "smt_hf")) else []
    return [tensor for part in parts for tensor in tensors_held(part, seen)]


def bytes_held(cache: DynamicCache) -> int:
    """Bytes of the storages behind the tensors: a view keeps all that it was cut from."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors_held(cache)}
    return sum(storage.nbytes() for storage in storages.values())


def logits_after(model: SMTForCausalLM, state, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, cache=copy.deepcopy(state)).logits


@pytest.mark.parametrize(("chunk", "kept"), [(1, 1), (10, 0), (100, 0), (100, 1)])
@torch.no_grad()
def test_bytes_are_those_of_one_memory_after_10_and_after_2000_tokens(chunk, kept):
    model = tiny_model(num_hidden_layers=1, num_readout_layers=1)
    ids = random_ids(2, 2000)
    sizes = {}
    state: Any = None
    for start in range(0, 2000, chunk):
        part = ids[:, start : start + chunk]
        state = model(part, cache=state, logits_to_keep=kept).cache
        sizes[start + part.shape[1]] = bytes_held(state)
    assert state.get_seq_length() == 2000
    assert set(sizes.values()) == {2 * TOKENS * WIDTH * 4}


@pytest.mark.parametrize("length", [10, 2000])
@torch.no_grad()
def test_bytes_do_not_depend_on_how_much_was_read_at_once(length):
    model = tiny_model(num_hidden_layers=1, num_readout_layers=1)
    state = model(random_ids(2, length)).cache
    assert bytes_held(state) == 2 * TOKENS * WIDTH * 4


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_continuing_from_a_state_equals_reading_everything(cell):
    model = tiny_model(cell)
    ids = random_ids(3, 12)
    state = model(ids[:, :7]).cache
    assert state.get_seq_length() == 7
    later = model(ids[:, 7:], cache=state)
    torch.testing.assert_close(later.logits, model(ids).logits[:, 7:], rtol=0, atol=1e-5)
    assert later.cache is state
    assert state.get_seq_length() == 12


@torch.no_grad()
def test_a_copied_state_can_be_gone_on_from_again_and_again():
    model = tiny_model()
    ids = random_ids(2, 9)
    state = model(ids[:, :5]).cache
    first = logits_after(model, state, ids[:, 5:])
    logits_after(model, state, ids[:, :3])
    assert torch.equal(logits_after(model, state, ids[:, 5:]), first)


def test_the_state_is_float32_with_unit_rms_and_carries_no_graph():
    model = tiny_model().train()
    out = model(random_ids(2, 5), labels=random_ids(2, 5))
    memory = memory_of(out.cache)
    assert memory.dtype == torch.float32
    assert memory.shape == (2, TOKENS, WIDTH)
    torch.testing.assert_close(memory.pow(2).mean(-1).sqrt(), torch.ones(2, TOKENS), rtol=0, atol=1e-4)
    recording = DynamicCache(config=model.config)
    recording.activate_past_recording()
    model(random_ids(2, 5), cache=recording)
    held = tensors_held(out.cache) + tensors_held(recording)
    assert len(held) == 3  # two memories and one history
    assert not any(tensor.requires_grad or tensor.grad_fn for tensor in held)


@torch.no_grad()
def test_a_used_state_is_a_leaf_for_the_next_forward_in_training():
    model = tiny_model()
    ids = random_ids(2, 8)
    state = model(ids[:, :5]).cache
    with torch.enable_grad():
        model.train()(ids[:, 5:], cache=state).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad is not None
    assert model.model.initial_memory.grad is None  # before the state nothing can be learned


def some_state(model: SMTForCausalLM, rows: int = 4):
    ids = random_ids(rows, 6, seed=8)
    return ids, model(ids).cache


@torch.no_grad()
def test_reorder_repeat_and_select_move_rows():
    model = tiny_model()
    ids, state = some_state(model)
    after = random_ids(1, 3, seed=9)
    changes = [
        ("reorder_cache", torch.tensor([2, 2, 0, 3]), [2, 2, 0, 3]),
        ("batch_repeat_interleave", 2, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("batch_select_indices", torch.tensor([3, 1]), [3, 1]),
        ("batch_select_indices", torch.tensor([True, False, True, False]), [0, 2]),
    ]
    for method, argument, rows in changes:
        changed = copy.deepcopy(state)
        getattr(changed, method)(argument)
        expected = model(torch.cat([ids[rows], after.expand(len(rows), -1)], dim=1)).logits[:, 6:]
        logits = model(after.expand(len(rows), -1), cache=changed).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        assert changed.get_seq_length() == 9


@torch.no_grad()
def test_rows_move_with_their_past_so_that_crop_still_goes_back_exactly():
    model = tiny_model()
    ids = random_ids(3, 6)
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    model(ids, cache=state)
    state.reorder_cache(torch.tensor([2, 0, 1]))
    state.crop(-2)
    expected = memory_of(model(ids[[2, 0, 1], :4]).cache)
    torch.testing.assert_close(memory_of(state), expected)


@pytest.mark.parametrize("back", range(6))
@torch.no_grad()
def test_crop_goes_back_exactly(back):
    model = tiny_model()
    ids, mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[1, 4:6] = 0
    state = model(ids[:, :4], attention_mask=mask[:, :4]).cache
    state.activate_past_recording()
    assert state.is_croppable
    model(ids[:, 4:], attention_mask=mask, cache=state, logits_to_keep=1)
    state.crop(-back)
    shorter = model(ids[:, : 9 - back], attention_mask=mask[:, : 9 - back]).cache
    torch.testing.assert_close(memory_of(state), memory_of(shorter), rtol=0, atol=1e-6)
    assert state.get_seq_length() == shorter.get_seq_length()


@torch.no_grad()
def test_crop_twice_goes_back_by_the_sum():
    model = tiny_model()
    ids = random_ids(2, 7)
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    model(ids, cache=state)
    state.crop(-2)
    state.crop(-3)
    expected = memory_of(model(ids[:, :2]).cache)
    torch.testing.assert_close(memory_of(state), expected)
    with pytest.raises(ValueError, match="cannot go back 3 token"):
        state.crop(-3)


@torch.no_grad()
def test_recording_does_not_change_the_logits():
    model = tiny_model()
    ids = random_ids(2, 90)
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    logits = model(ids, cache=state, logits_to_keep=2).logits
    torch.testing.assert_close(logits, model(ids).logits[:, -2:])


@torch.no_grad()
def test_crop_past_its_bound_or_forwards_is_an_error_and_changes_nothing():
    model = tiny_model()
    ids = random_ids(2, 6)
    state = model(ids[:, :3]).cache
    assert not state.is_croppable
    state.activate_past_recording()
    model(ids[:, 3:], cache=state)
    memory = memory_of(state).clone()
    for removed, named in ((-4, "4 token(s): it holds the past of 3"), (1, "not 1")):
        with pytest.raises(ValueError) as error:
            state.crop(removed)
        assert is_one_sentence(error.value, named)
    unrecorded = model(ids).cache
    with pytest.raises(ValueError, match="activate_past_recording") as error:
        unrecorded.crop(-1)
    assert is_one_sentence(error.value, "1 token(s)")
    assert torch.equal(memory_of(state), memory)
    assert state.get_seq_length() == 6


@torch.no_grad()
def test_reset_returns_to_the_initial_memory():
    model = tiny_model()
    ids, state = some_state(model)
    state.reset()
    assert state.get_seq_length() == 0
    assert torch.equal(model(ids, cache=state).logits, model(ids).logits)
    state.reset()
    model(ids[:1], cache=state)  # and is free to take another batch size


@torch.no_grad()
def test_an_empty_cache_starts_cold():
    model = tiny_model()
    ids = random_ids(2, 5)
    state: Any = DynamicCache(config=model.config)
    assert torch.equal(model(ids, cache=state).logits, model(ids).logits)
    assert state.get_seq_length() == 5


@torch.no_grad()
def test_a_state_of_another_batch_size_is_an_error_that_names_both():
    model = tiny_model()
    _, state = some_state(model)
    for rows in (1, 2, 5):
        with pytest.raises(ValueError) as error:
            model(random_ids(rows, 3), cache=state)
        assert is_one_sentence(error.value, "holds 4 row(s)", f"input has {rows}")


@torch.no_grad()
def test_forward_leaves_a_state_alone_that_it_was_not_given():
    model = tiny_model()
    ids, state = some_state(model)
    memory = memory_of(state).clone()
    model(ids)
    assert torch.equal(memory_of(state), memory)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_of_another_kind_of_model_is_refused(name):
    """Such as a tuned prefix: keys and values, which a memory has no place for."""
    model: Any = tiny_model()
    filled = DynamicCache()
    filled.update(torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8), 0)
    pairs = ((torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8)),)
    ids = random_ids(1, 3)
    for cache in (filled, DynamicCache(), pairs):
        for call in (
            lambda cache=cache: model(ids, **{name: cache}),
            lambda cache=cache: model.model(ids, **{name: cache}),
            lambda cache=cache: model.prefill(ids, **{name: cache}),
            lambda cache=cache: model.save_state(path="nowhere", **{name: cache}),
        ):
            with pytest.raises(ValueError) as error:
                call()
            assert is_one_sentence(error.value, type(cache).__name__, "DynamicCache(config=model.config)")
