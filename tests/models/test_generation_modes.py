"""The rarer modes of `generate`, each against a plain loop that reads everything again at each step.

Diverse, constrained and contrastive search have left `transformers` for repositories of the Hub.
"""

from typing import Any

import pytest
import torch
from test_generation import NEW, drafting, greedy, next_scores, prompt, talking_model
from tiny_models import BUILT_IN_CELLS, VOCAB, generate, is_one_sentence, memory_of, pad, random_ids
from transformers import (
    CompileConfig,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
    StoppingCriteria,
    WatermarkingConfig,
)
from transformers.generation.logits_process import WatermarkLogitsProcessor

from smt_hf import SMTForCausalLM
from smt_hf.models.cache_smt import HISTORY_BOUND, StaticMemoryLayer


def greedily(model: Any, ids: torch.Tensor | None = None, **options: Any) -> Any:
    return generate(model, ids, **{"max_new_tokens": NEW, "do_sample": False, **options})


def test_beam_sampling_equals_the_reference_loop():
    """Each step draws 2·beams longer hypotheses from the softmax over all of them and keeps the best.

    The last step ends all of them, and of those `generate` takes the first that were drawn.
    """
    model, beams = talking_model(), 3
    torch.manual_seed(5)
    out = generate(
        model, prompt(), max_new_tokens=NEW, do_sample=True, num_beams=beams, top_k=0, length_penalty=0.0,
        num_return_sequences=beams,
    )  # fmt: skip
    torch.manual_seed(5)
    ids, totals = prompt().expand(beams, -1), torch.tensor([0.0, -1e9, -1e9])
    for step in range(NEW):
        scores = (totals[:, None] + next_scores(model, ids)).flatten()
        drawn = torch.multinomial(scores.softmax(-1), 2 * beams if step < NEW - 1 else beams)
        kept = drawn[scores[drawn].topk(beams).indices]
        totals = scores[kept]
        ids = torch.cat([ids[kept // VOCAB], kept[:, None] % VOCAB], dim=1)
    assert torch.equal(out, ids)
    assert len({tuple(row) for row in out.tolist()}) == beams


def foreign_model(kind: str):
    torch.manual_seed(3)
    if kind == "gpt2":
        model: Any = GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2, n_positions=64)
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCAB,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        )
    model.generation_config.eos_token_id = model.generation_config.bos_token_id = None
    with torch.no_grad():
        model.lm_head.weight.normal_()
    return model.eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_of_another_family_assists_and_is_assisted(kind):
    other, ours = foreign_model(kind), talking_model()
    assert torch.equal(greedily(ours, prompt(), assistant_model=drafting(other, 3)), greedy(ours, prompt()))
    expected = greedily(foreign_model(kind), prompt())
    assert torch.equal(greedily(foreign_model(kind), prompt(), assistant_model=drafting(ours, 3)), expected)


def test_an_assistant_of_another_cell_is_used_and_changes_nothing(monkeypatch):
    ours, assistant = talking_model("transformer"), drafting(talking_model("gru"), 4)
    drafted = []
    inner = assistant.forward
    monkeypatch.setattr(assistant, "forward", lambda *args, **kw: drafted.append(1) or inner(*args, **kw))
    assert torch.equal(greedily(ours, prompt(), assistant_model=assistant), greedy(ours, prompt()))
    assert drafted


def test_assisted_sampling_keeps_the_distribution_of_the_target():
    """The first new token, over 300 draws, against its softmax; most drafts of another cell are wrong."""
    ours, assistant = talking_model(), drafting(talking_model("gru"), 1)
    torch.manual_seed(0)
    counts = torch.zeros(VOCAB)
    draws = 300
    for _ in range(draws):
        out = generate(ours, prompt(), max_new_tokens=2, do_sample=True, top_k=0, assistant_model=assistant)
        counts[out[0, 5]] += 1
    expected = next_scores(ours, prompt())[0].exp() * draws
    likely = expected > 5
    deviations = (counts - expected)[likely] / expected[likely].sqrt()
    assert deviations.abs().max() < 4


def test_assisted_decoding_of_a_left_padded_row_equals_the_row_alone():
    ours, assistant = talking_model(), drafting(talking_model("gru"), 3)
    ids, mask = pad([prompt()[0], random_ids(9)], "left", filler=7)
    out = greedily(ours, ids[:1], attention_mask=mask[:1], assistant_model=assistant)
    assert torch.equal(out[0, 4:], greedy(ours, prompt())[0])


def test_a_state_that_assisted_decoding_returns_goes_on_exactly():
    ours, assistant = talking_model(), drafting(talking_model("gru"), 3)
    first = greedily(ours, prompt(), assistant_model=assistant, return_dict_in_generate=True)
    second = greedily(ours, first.sequences, past_key_values=first.past_key_values)
    assert torch.equal(second, greedy(ours, prompt(), 2 * NEW))


@torch.no_grad()
def test_a_recording_state_goes_back_as_far_as_its_bound_and_not_further():
    model = talking_model()
    ids = random_ids(1, HISTORY_BOUND + 20)
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    for part in ids.split(50, dim=1):
        model(part, past_key_values=state)
    with pytest.raises(ValueError) as error:
        state.crop(-HISTORY_BOUND - 1)
    assert is_one_sentence(error.value, HISTORY_BOUND + 1, HISTORY_BOUND)
    state.crop(-HISTORY_BOUND)
    expected = memory_of(model(ids[:, :20]).past_key_values)
    torch.testing.assert_close(memory_of(state), expected)


# --- the static cache -----------------------------------------------------------------------------------


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
        drawn.append(generate(model, prompt(3), max_new_tokens=NEW, do_sample=True, **options))
    assert torch.equal(*drawn)


@torch.no_grad()
def test_a_static_state_stays_at_its_address_and_equals_the_dynamic_one():
    model = talking_model()
    ids = random_ids(2, 9)
    state: Any = StaticCache(config=model.config, max_cache_len=1)  # the memory needs no length
    layer = state.layers[0]
    assert isinstance(layer, StaticMemoryLayer)
    model(ids[:, :4], past_key_values=state)
    addresses = memory_of(state).data_ptr(), layer.num_tokens.data_ptr()
    for start in (4, 5, 7):
        model(ids[:, start : start + 2 if start > 4 else 5], past_key_values=state)
    state.reorder_cache(torch.tensor([1, 0]))
    assert addresses == (memory_of(state).data_ptr(), layer.num_tokens.data_ptr())
    torch.testing.assert_close(memory_of(state), memory_of(model(ids[[1, 0]]).past_key_values))
    assert int(state.get_seq_length()) == 9
    with pytest.raises(ValueError) as error:
        state.activate_past_recording()
    assert is_one_sentence(error.value, "default cache")


@torch.no_grad()
def test_a_static_state_that_was_reset_starts_cold():
    model = talking_model()
    state: Any = StaticCache(config=model.config, max_cache_len=8)
    expected = model(prompt(2)).logits
    model(random_ids(2, 3), past_key_values=state)
    state.reset()
    assert int(state.get_seq_length()) == 0
    torch.testing.assert_close(model(prompt(2), past_key_values=state).logits, expected)
    assert int(state.get_seq_length()) == 5


def test_a_returned_static_state_goes_on_exactly():
    model = talking_model()
    options: dict[str, Any] = dict(max_new_tokens=6, return_dict_in_generate=True)
    first = greedily(model, prompt(2), cache_implementation="static", **options)
    second = greedily(model, first.sequences, past_key_values=first.past_key_values, **options)
    assert torch.equal(second.sequences, greedy(model, prompt(2), 12))


def compiling(graphs: list) -> CompileConfig:
    """Let `generate` compile on a CPU too, and put each new graph into the list."""

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    config = CompileConfig(backend=backend, fullgraph=True, mode=None)
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


# --- going on from a state ------------------------------------------------------------------------------


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
            cache: Any = model(ids, attention_mask=mask).past_key_values
        return cache

    full = torch.cat([ids, turn], dim=1)
    beams = options.get("num_beams", 1)
    for given in (full, turn):
        cache = state()
        cache.batch_repeat_interleave(beams)
        out = greedily(model, given, attention_mask=new_mask, past_key_values=cache, **options)
        assert torch.equal(out[:, given.shape[1] :], expected[:, full.shape[1] :])


@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 2}, {"num_beams": 2}, {"cache": "static"}])
@pytest.mark.parametrize("new", [1, 4, 10])
def test_new_ids_without_the_full_mask_are_an_error_that_says_what_to_pass(new, options):
    model = talking_model()
    kind, options = options.get("cache"), {k: v for k, v in options.items() if k != "cache"}
    state = first_turn(model, cache_implementation=kind).past_key_values
    memory = memory_of(state).clone()
    for mask in (None, torch.ones(2, new, dtype=torch.long), pad([random_ids(new), random_ids(1)], "left")[1]):
        with pytest.raises(ValueError) as error:
            greedily(model, random_ids(2, new), past_key_values=state, attention_mask=mask, **options)
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
    state = first_turn(model).past_key_values
    embeds = model.get_input_embeddings()(random_ids(2, 4)).detach()
    with pytest.raises(ValueError, match="has read 10 token"):
        greedily(model, inputs_embeds=embeds, past_key_values=state)


def test_assisted_decoding_goes_on_from_a_state_with_new_ids_and_refuses_the_whole_text():
    model = talking_model()
    ids, turn = prompt(), random_ids(1, 4, seed=6)
    whole = torch.cat([ids, turn], dim=1)
    expected = greedy(model, whole)[:, 9:]
    for options in ({"assistant_model": drafting(talking_model("gru"), 3)}, {"prompt_lookup_num_tokens": 3}):
        with torch.no_grad():
            state = model(ids).past_key_values
        with pytest.raises(ValueError) as error:
            greedily(model, whole, past_key_values=state, **options)
        assert is_one_sentence(error.value, "has read 5 token(s)", "input has 9", "5 more columns")
        mask = torch.ones(1, 9, dtype=torch.long)
        out = greedily(model, turn, attention_mask=mask, past_key_values=state, **options)
        assert torch.equal(out[:, 4:], expected)


# --- stopping, processing, prompts ----------------------------------------------------------------------


class StopsAt(StoppingCriteria):
    """Ends a row whose last token is `token`."""

    def __init__(self, token: int):
        self.token = token

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return input_ids[:, -1] == self.token


def test_a_stopping_criterion_ends_the_run_where_it_holds():
    model = talking_model()
    free = greedy(model, prompt())
    token = int(free[0, 9])
    out = greedily(model, prompt(), stopping_criteria=[StopsAt(token)])
    end = 6 + int((free[0, 5:] == token).nonzero()[0])
    assert torch.equal(out, free[:, :end])


def test_watermarking_biases_the_logits_of_the_plain_loop():
    model = talking_model()
    config = WatermarkingConfig(bias=3.0, seeding_scheme="lefthash", context_width=1)
    out = greedily(model, prompt(), watermarking_config=config)
    processor = WatermarkLogitsProcessor(
        vocab_size=VOCAB, device="cpu", greenlist_ratio=config.greenlist_ratio, bias=config.bias,
        hashing_key=config.hashing_key, seeding_scheme=config.seeding_scheme, context_width=1,
    )  # fmt: skip
    ids = prompt()
    for _ in range(NEW):
        scores = processor(ids, next_scores(model, ids))
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(out, ids)
    assert not torch.equal(out, greedy(model, prompt()))


@pytest.mark.parametrize(
    "options", [{"cache_implementation": "static"}, {"prefill_chunk_size": 2}, {"num_beams": 3}]
)
def test_prompt_embeddings_generate_what_their_ids_do_in_other_modes_too(options):
    model = talking_model()
    embeds = model.get_input_embeddings()(prompt(2)).detach()
    assert torch.equal(
        greedily(model, inputs_embeds=embeds, **options), greedily(model, prompt(2), **options)[:, 5:]
    )


def test_a_right_padded_batch_equals_its_rows_alone():
    """`generate` appends after the padding, which leaves the memory as it is."""
    model = talking_model()
    rows = [random_ids(length, seed=length) for length in (8, 3, 1, 5)]
    ids, mask = pad(rows, "right", filler=7)
    out = greedily(model, ids, attention_mask=mask)
    for row, generated in zip(rows, out, strict=True):
        assert torch.equal(generated[8:], greedy(model, row[None])[0, len(row) :])
