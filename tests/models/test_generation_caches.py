"""`generate` with the static cache, compiled, and from a state: the tokens of a plain loop every time."""

from typing import Any

import pytest
import torch
from test_generation import drafting, greedy, prompt, talking_model
from test_generation_modes import greedily
from tiny_models import BUILT_IN_CELLS, generate, is_one_sentence, memory_of, pad, random_ids
from transformers import CompileConfig, StaticCache

from smt_hf import SMTForCausalLM
from smt_hf.models.state_cache import StaticMemoryLayer


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"prefill_chunk_size": 2}])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_a_static_cache_gives_the_same_tokens(cell, options):
    model = talking_model(cell)
    out = greedily(model, prompt(2), cache_implementation="static", **options)
    assert torch.equal(out, greedily(model, prompt(2), **options))


@pytest.mark.parametrize("kind", [None, "static"])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"prefill_chunk_size": 3}, {"prefill_chunk_size": 1}]
)
def test_a_left_padded_batch_equals_its_rows_alone_with_either_cache(options, kind):
    model = talking_model()
    rows = [random_ids(length, seed=length) for length in (8, 3, 1, 5)]
    ids, mask = pad(rows, "left", filler=7)
    out = greedily(model, ids, attention_mask=mask, cache_implementation=kind, **options)
    for row, generated in zip(rows, out, strict=True):
        assert torch.equal(generated[8:], greedily(model, row[None], **options)[0, len(row) :])


def test_sampling_with_a_static_cache_draws_the_same_tokens():
    model = talking_model()
    drawn = []
    for options in ({}, {"cache_implementation": "static"}):
        torch.manual_seed(5)
        drawn.append(generate(model, prompt(3), max_new_tokens=12, do_sample=True, **options))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_in_half_precision_both_caches_hold_the_same_float32_memory(cell):
    model = talking_model(cell).bfloat16()
    options: dict[str, Any] = dict(return_dict_in_generate=True)
    dynamic = greedily(model, prompt(2), **options)
    static = greedily(model, prompt(2), cache_implementation="static", **options)
    assert torch.equal(static.sequences, dynamic.sequences)
    assert torch.equal(memory_of(static.cache), memory_of(dynamic.cache))
    assert memory_of(static.cache).dtype == torch.float32


@torch.no_grad()
def test_a_static_state_stays_at_its_address_and_equals_the_dynamic_one():
    model = talking_model()
    ids = random_ids(2, 9)
    state: Any = StaticCache(config=model.config, max_cache_len=1)  # the memory needs no length
    layer = state.layers[0]
    assert isinstance(layer, StaticMemoryLayer)
    model(ids[:, :4], cache=state)
    addresses = memory_of(state).data_ptr(), layer.num_tokens.data_ptr()
    for start in (4, 5, 7):
        model(ids[:, start : start + 2 if start > 4 else 5], cache=state)
    state.reorder_cache(torch.tensor([1, 0]))
    assert addresses == (memory_of(state).data_ptr(), layer.num_tokens.data_ptr())
    torch.testing.assert_close(memory_of(state), memory_of(model(ids[[1, 0]]).cache))
    assert int(state.get_seq_length()) == 9
    with pytest.raises(ValueError) as error:
        state.activate_past_recording()
    assert is_one_sentence(error.value, "default cache")


@torch.no_grad()
def test_a_static_state_that_was_reset_starts_cold():
    model = talking_model()
    state: Any = StaticCache(config=model.config, max_cache_len=8)
    expected = model(prompt(2)).logits
    model(random_ids(2, 3), cache=state)
    state.reset()
    assert int(state.get_seq_length()) == 0
    torch.testing.assert_close(model(prompt(2), cache=state).logits, expected)
    assert int(state.get_seq_length()) == 5


def test_a_returned_static_state_goes_on_exactly():
    model = talking_model()
    options: dict[str, Any] = dict(max_new_tokens=6, return_dict_in_generate=True)
    first = greedily(model, prompt(2), cache_implementation="static", **options)
    second = greedily(model, first.sequences, cache=first.cache, **options)
    assert torch.equal(second.sequences, greedy(model, prompt(2), 12))


def compiling(graphs: list) -> CompileConfig:
    """Let `generate` compile on a CPU too, and put each new graph into the list."""

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    settings: dict[str, Any] = dict(backend=backend, fullgraph=True, mode=None)
    config: Any = CompileConfig(**settings)
    config._compile_all_devices = True
    return config


@pytest.mark.parametrize("cell", ["elman", "transformer"])
def test_compiled_decoding_is_one_graph_over_all_tokens_and_calls(cell):
    model = talking_model(cell)
    graphs: list = []
    config = compiling(graphs)
    for length in (5, 3, 9):
        ids = random_ids(2, length, seed=length)
        out = greedily(model, ids, cache_implementation="static", compile_config=config)
        assert torch.equal(out, greedy(model, ids))
        assert len(graphs) == 1
    ids, mask = pad([random_ids(6), random_ids(2)], "left", filler=7)
    out = greedily(model, ids, attention_mask=mask, cache_implementation="static", compile_config=config)
    assert torch.equal(out, greedily(model, ids, attention_mask=mask))
    assert len(graphs) == 1


def first_turn(model: SMTForCausalLM, **options: Any) -> Any:
    return greedily(model, prompt(2), max_new_tokens=6, return_dict_in_generate=True, **options)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"prefill_chunk_size": 2}])
def test_full_ids_or_new_ids_with_the_full_mask_both_go_on_exactly(options):
    model = talking_model()
    ids, mask = pad([random_ids(5), random_ids(3)], "left", filler=7)
    turn = random_ids(2, 4, seed=6)
    new_mask = torch.cat([mask, torch.ones_like(turn)], dim=1)
    expected = greedily(model, torch.cat([ids, turn], dim=1), attention_mask=new_mask, **options)

    def state() -> Any:
        with torch.no_grad():
            cache: Any = model(ids, attention_mask=mask).cache
        return cache

    full = torch.cat([ids, turn], dim=1)
    beams = options.get("num_beams", 1)
    for given in (full, turn):
        cache = state()
        cache.batch_repeat_interleave(beams)
        out = greedily(model, given, attention_mask=new_mask, cache=cache, **options)
        assert torch.equal(out[:, given.shape[1] :], expected[:, full.shape[1] :])


@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 2}, {"num_beams": 2}, {"cache": "static"}])
@pytest.mark.parametrize("new", [1, 4, 10])
def test_new_ids_without_the_full_mask_are_an_error_that_says_what_to_pass(new, options):
    model = talking_model()
    kind, options = options.get("cache"), {k: v for k, v in options.items() if k != "cache"}
    state = first_turn(model, cache_implementation=kind).cache
    memory = memory_of(state).clone()
    for mask in (None, torch.ones(2, new, dtype=torch.long), pad([random_ids(new), random_ids(1)], "left")[1]):
        with pytest.raises(ValueError) as error:
            greedily(model, random_ids(2, new), cache=state, attention_mask=mask, **options)
        named = (
            "has read 10 token(s)",
            f"input has {new}",
            "whole text",
            f"attention_mask of {10 + new} columns",
        )
        assert is_one_sentence(error.value, *named)
    assert torch.equal(memory_of(state), memory)


def test_new_embeddings_without_the_full_length_are_an_error_too():
    model = talking_model()
    state = first_turn(model).cache
    embeds = model.get_input_embeddings()(random_ids(2, 4)).detach()
    with pytest.raises(ValueError, match="has read 10 token"):
        greedily(model, inputs_embeds=embeds, cache=state)


def test_assisted_decoding_goes_on_from_a_state_with_new_ids_and_refuses_the_whole_text():
    model = talking_model()
    ids, turn = prompt(), random_ids(1, 4, seed=6)
    whole = torch.cat([ids, turn], dim=1)
    expected = greedy(model, whole)[:, 9:]
    for options in ({"assistant_model": drafting(talking_model("gru"), 3)}, {"prompt_lookup_num_tokens": 3}):
        with torch.no_grad():
            state = model(ids).cache
        with pytest.raises(ValueError) as error:
            greedily(model, whole, cache=state, **options)
        assert is_one_sentence(error.value, "has read 5 token(s)", "input has 9", "5 more columns")
        mask = torch.ones(1, 9, dtype=torch.long)
        out = greedily(model, turn, attention_mask=mask, cache=state, **options)
        assert torch.equal(out[:, 4:], expected)
