"""The rarer modes of `generate`, each against a plain loop that reads everything again at each step.

Diverse, constrained and contrastive search have left `transformers` for repositories of the Hub.
"""

from typing import Any

import pytest
import torch
from test_generation import NEW, drafting, greedy, next_scores, prompt, record_lengths, talking_model
from tiny_models import VOCAB, generate, is_one_sentence, memory_of, pad, random_ids, tiny_model
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    StoppingCriteria,
    WatermarkingConfig,
)
from transformers.generation.logits_process import WatermarkLogitsProcessor

from smt_hf.data.tokenizer import byte_tokenizer
from smt_hf.models import modeling_smt, state_cache
from smt_hf.models.library_names import STATE_NAME
from smt_hf.models.state_cache import HISTORY_BOUND, MemoryLayer


def greedily(model: Any, ids: torch.Tensor | None = None, **options: Any) -> Any:
    return generate(model, ids, **{"max_new_tokens": NEW, "do_sample": False, **options})


def test_beam_sampling_equals_the_reference_loop():
    """Each step draws 2·beams longer hypotheses from the softmax over all of them and keeps the best.

    The last step ends all of them, and of those `generate` takes the best; before transformers 5.24, the first
    that were drawn.
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
        first_drawn = step == NEW - 1 and STATE_NAME != "cache"
        drawn = torch.multinomial(scores.softmax(-1), beams if first_drawn else 2 * beams)
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
    read = record_lengths(assistant, monkeypatch)
    assert torch.equal(greedily(ours, prompt(), assistant_model=assistant), greedy(ours, prompt()))
    assert len(read) >= 4


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
    second = greedily(ours, first.sequences, cache=first.cache)
    assert torch.equal(second, greedy(ours, prompt(), 2 * NEW))


@torch.no_grad()
def test_a_recording_state_goes_back_as_far_as_its_bound_and_not_further():
    model = talking_model()
    ids = random_ids(1, HISTORY_BOUND + 20)
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    for part in ids.split(50, dim=1):
        model(part, cache=state)
    with pytest.raises(ValueError) as error:
        state.crop(-HISTORY_BOUND - 1)
    assert is_one_sentence(error.value, HISTORY_BOUND + 1, HISTORY_BOUND)
    state.crop(-HISTORY_BOUND)
    expected = memory_of(model(ids[:, :20]).cache)
    torch.testing.assert_close(memory_of(state), expected)


@torch.no_grad()
def test_a_recording_forward_holds_no_more_memories_than_it_can_go_back(monkeypatch):
    """A long prompt costs assisted decoding what it costs any other mode."""
    model = talking_model()
    ids = random_ids(1, 1000)
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    held = []
    inner = model.model._roll

    def roll(*args: Any) -> Any:
        read = inner(*args)
        if read.past is not None:
            held.append((read.past.shape[1], read.hidden.shape[1]))
        return read

    monkeypatch.setattr(model.model, "_roll", roll)
    logits = model(ids, cache=state, logits_to_keep=3).logits
    assert held == [(HISTORY_BOUND, 3)]
    assert state.layers[0].history.shape[1] == HISTORY_BOUND
    torch.testing.assert_close(logits, model(ids).logits[:, -3:])
    state.crop(-HISTORY_BOUND)
    torch.testing.assert_close(memory_of(state), memory_of(model(ids[:, :-HISTORY_BOUND]).cache))


@torch.no_grad()
def test_a_state_that_stopped_recording_forgets_its_past_instead_of_going_back_to_it():
    model = talking_model()
    state: Any = DynamicCache(config=model.config)
    state.activate_past_recording()
    model(random_ids(1, 6), cache=state)
    assert state.is_recording_past(0)
    state.layers[0].record_past = False  # as `generate` does before it gives a state back
    model(random_ids(1, 2), cache=state)
    with pytest.raises(ValueError, match="holds the past of 0"):
        state.crop(-1)


def test_more_drafts_than_the_bound_are_taken_back_too(monkeypatch):
    bound = 16
    for module in (state_cache, modeling_smt):
        monkeypatch.setattr(module, "HISTORY_BOUND", bound)
    model = talking_model()
    once = random_ids(1, 40)
    ids = torch.cat([once, once[:, :1]], dim=1)  # so that 39 wrong tokens are there to look up
    taken_back = []
    inner = MemoryLayer.crop

    def crop(self: MemoryLayer, tokens_to_remove: int) -> None:
        taken_back.append(-tokens_to_remove)
        inner(self, tokens_to_remove)

    monkeypatch.setattr(MemoryLayer, "crop", crop)
    options = dict(max_new_tokens=bound + 20)
    expected = greedily(model, ids, **options)
    out = greedily(model, ids, prompt_lookup_num_tokens=bound + 15, max_matching_ngram_size=1, **options)
    assert torch.equal(out, expected)
    assert max(taken_back) > bound


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


@pytest.mark.parametrize(
    "options", [{}, {"cache_implementation": "static"}, {"num_beams": 2}, {"use_cache": False}]
)
def test_stop_strings_end_the_text_where_they_stand(options):
    """`generate` hands the tokenizer to its loops among the model's arguments."""
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=258)
    letters = range(ord("a"), ord("z") + 1)
    ids = torch.tensor([list(b"abc")])
    options = {**options, "suppress_tokens": [i for i in range(258) if i not in letters], "pad_token_id": 257}
    free = greedily(model, ids, **options)[0].tolist()
    stop = bytes(free[6:8]).decode()
    out = greedily(model, ids, stop_strings=[stop], tokenizer=tokenizer, **options)[0].tolist()
    end = bytes(free).index(stop.encode(), 3) + 2
    assert out == free[:end] or "num_beams" in options
