"""`generate` gives what plain loops give that read everything again from the first token at each step."""

import threading
from typing import Any, cast

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, VOCAB, generate, memory_of, pad, random_ids, tiny_model
from transformers import PreTrainedTokenizerBase, TextIteratorStreamer
from transformers.generation.streamers import BaseStreamer

from smt_hf import SMTForCausalLM
from smt_hf.models.state_cache import MemoryLayer

# Seeds whose greedy continuation does not fall into one repeated token.
SEEDS = {"transformer": 1, "mlp": 6, "gru": 8, "lstm": 11, "elman": 0}
NEW = 12


def talking_model(cell: str = "elman", **changes) -> SMTForCausalLM:
    return tiny_model(cell, seed=SEEDS.get(cell, 0), **changes)


@torch.no_grad()
def next_scores(model: SMTForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token, (B, V), with no state kept from before."""
    return model(ids, use_cache=False).logits[:, -1].log_softmax(-1)


def greedy(model: SMTForCausalLM, ids: torch.Tensor, steps: int = NEW) -> torch.Tensor:
    for _ in range(steps):
        ids = torch.cat([ids, next_scores(model, ids).argmax(-1, keepdim=True)], dim=1)
    return ids


def beam_search(
    model: SMTForCausalLM, ids: torch.Tensor, beams: int, steps: int = NEW
) -> list[tuple[float, list[int]]]:
    """The `beams` best (summed log-probability, tokens), keeping as many at each step; one row, no eos."""
    hypotheses = [(0.0, ids[0].tolist())]
    for _ in range(steps):
        longer = []
        all_scores = next_scores(model, torch.tensor([tokens for _, tokens in hypotheses]))
        for (total, tokens), scores in zip(hypotheses, all_scores, strict=True):
            longer += [(total + scores[token].item(), [*tokens, token]) for token in range(VOCAB)]
        hypotheses = sorted(longer, reverse=True)[:beams]
    return hypotheses


def prompt(rows: int = 1, length: int = 5) -> torch.Tensor:
    return random_ids(rows, length, seed=1)


def record_lengths(model: SMTForCausalLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each forward reads from now on, in a list that grows."""
    lengths: list[int] = []
    project = model.model.cell.project_inputs

    def counted(inputs_embeds: torch.Tensor) -> torch.Tensor:
        lengths.append(inputs_embeds.shape[1])
        return project(inputs_embeds)

    monkeypatch.setattr(model.model.cell, "project_inputs", counted)
    return lengths


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_greedy_equals_the_plain_loop(cell):
    model = talking_model(cell)
    expected = greedy(model, prompt(3))
    assert len(expected[0, 5:].unique()) > 3
    assert torch.equal(generate(model, prompt(3), max_new_tokens=NEW, do_sample=False), expected)


def test_greedy_stops_each_row_at_eos_and_pads_it():
    model = talking_model()
    free = greedy(model, prompt(3))
    eos = free[0, 8].item()
    out = generate(model, prompt(3), max_new_tokens=NEW, eos_token_id=eos, pad_token_id=0)
    for row, whole in zip(out, free, strict=True):
        ends = (whole[5:] == eos).nonzero()
        end = 5 + int(ends[0]) + 1 if len(ends) else whole.shape[0]
        assert torch.equal(row[:end], whole[:end])
        assert (row[end:] == 0).all()


@pytest.mark.parametrize("cell", ["elman", "transformer"])
def test_sampling_with_a_seed_equals_the_plain_sampling_loop(cell):
    model = talking_model(cell)
    torch.manual_seed(5)
    out = generate(model, prompt(2), max_new_tokens=NEW, do_sample=True, temperature=0.7, top_k=6)
    torch.manual_seed(5)
    ids = prompt(2)
    for _ in range(NEW):
        scores = next_scores(model, ids) / 0.7
        sixth = scores.topk(6).values[:, -1:]
        probabilities = torch.where(scores < sixth, -torch.inf, scores).softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1)], dim=1)
    assert torch.equal(out, ids)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_four_beams_equal_the_reference_beam_search_and_need_the_state_reordered(cell, monkeypatch):
    model = talking_model(cell)
    options: dict[str, Any] = dict(max_new_tokens=NEW, num_beams=4, num_return_sequences=4, length_penalty=0.0)
    detailed: dict[str, Any] = dict(do_sample=False, return_dict_in_generate=True, output_scores=True)
    out = generate(model, prompt(), **detailed, **options)
    expected = beam_search(model, prompt(), beams=4)
    assert out.sequences.tolist() == [tokens for _, tokens in expected]
    scores = torch.tensor([total for total, _ in expected])
    torch.testing.assert_close(out.sequences_scores, scores, rtol=1e-4, atol=1e-4)
    assert not torch.equal(out.sequences[:1], greedy(model, prompt()))

    monkeypatch.setattr(MemoryLayer, "reorder_cache", lambda self, beam_idx: None)
    assert not torch.equal(generate(model, prompt(), do_sample=False, **options), out.sequences)


@pytest.mark.parametrize("options", [{}, {"num_beams": 4}, {"prefill_chunk_size": 3}])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_a_left_padded_batch_equals_its_rows_alone(cell, options):
    model = talking_model(cell)
    rows = [random_ids(length, seed=length) for length in (8, 3, 1, 5)]
    ids, mask = pad(rows, "left", filler=7)
    out = generate(model, ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, **options)
    for row, generated in zip(rows, out, strict=True):
        alone = generate(model, row[None], max_new_tokens=NEW, do_sample=False, **options)
        assert torch.equal(generated[ids.shape[1] :], alone[0, len(row) :])


def test_a_prompt_read_in_chunks_gives_the_same_tokens():
    model = talking_model()
    out = generate(model, prompt(2, 11), max_new_tokens=NEW, do_sample=False, prefill_chunk_size=4)
    assert torch.equal(out, greedy(model, prompt(2, 11)))


def test_without_cache_the_tokens_are_the_same():
    model = talking_model()
    out = generate(model, prompt(2), max_new_tokens=NEW, do_sample=False, use_cache=False)
    assert torch.equal(out, greedy(model, prompt(2)))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_a_state_that_may_not_be_kept_is_refused_before_it_reads_anything(options):
    """Every step would read the new tokens again, on top of what the state has read of them."""
    model, ids = tiny_model("gru"), random_ids(1, 6)
    state = model(ids[:, :4], use_cache=True).cache
    with pytest.raises(ValueError, match="use_cache is False, and a state was given; leave one of them out"):
        model.generate(
            ids[:, 4:],
            attention_mask=torch.ones(1, 6),
            cache=state,
            use_cache=False,
            max_new_tokens=3,
            **options,
        )
    assert state.get_seq_length() == 4


def test_generation_steps_one_token_at_a_time_with_the_cache(monkeypatch):
    model = talking_model()
    lengths = record_lengths(model, monkeypatch)
    generate(model, prompt(), max_new_tokens=NEW, do_sample=False)
    assert lengths == [5] + [1] * (NEW - 1)


def test_prompt_embeddings_generate_what_their_ids_do():
    model = talking_model()
    embeds = model.get_input_embeddings()(prompt(2)).detach()
    out = generate(model, inputs_embeds=embeds, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(out, greedy(model, prompt(2))[:, 5:])


class Collector(BaseStreamer):
    """Keeps what a streamer is given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        assert not self.ended
        self.tokens += value.reshape(-1).tolist()

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("do_sample", [False, True])
def test_streaming_yields_the_tokens_of_the_result(do_sample):
    collector = Collector()
    out = generate(talking_model(), prompt(), max_new_tokens=NEW, do_sample=do_sample, streamer=collector)
    assert collector.tokens == out[0].tolist()
    assert collector.ended


class NumberTokenizer:
    """Token 7 is the text "7 ": the least that a text streamer asks of a tokenizer."""

    def decode(self, ids: list[int], **kwargs) -> str:
        return "".join(f"{int(token)} " for token in ids)


def test_text_streamer_in_a_thread_yields_the_text_of_the_result():
    model = talking_model()
    tokenizer = cast(PreTrainedTokenizerBase, NumberTokenizer())
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    options: dict[str, Any] = dict(max_new_tokens=NEW, do_sample=False, streamer=streamer)
    thread = threading.Thread(target=generate, args=(model, prompt()), kwargs=options)
    thread.start()
    pieces = list(streamer)
    thread.join()
    expected = greedy(model, prompt())[0, 5:].tolist()
    assert [int(number) for number in "".join(pieces).split()] == expected
    assert len([piece for piece in pieces if piece]) == NEW


@pytest.mark.parametrize("cell", ["elman", "transformer"])
def test_continuing_from_the_returned_state_equals_one_run(cell):
    model = talking_model(cell)
    options: dict[str, Any] = dict(max_new_tokens=6, do_sample=False, return_dict_in_generate=True)
    first = generate(model, prompt(2), **options)
    second = generate(model, first.sequences, cache=first.cache, **options)
    assert torch.equal(second.sequences, greedy(model, prompt(2), 12))


def test_continuing_a_dialogue_reads_only_the_new_tokens(monkeypatch):
    model = talking_model()
    options: dict[str, Any] = dict(max_new_tokens=6, do_sample=False, return_dict_in_generate=True)
    first = generate(model, prompt(), **options)
    turn = torch.cat([first.sequences, random_ids(1, 4, seed=6)], dim=1)
    lengths = record_lengths(model, monkeypatch)
    second = generate(model, turn, cache=first.cache, **options)
    assert lengths == [5] + [1] * 5  # the last token of the first answer and the four new ones
    monkeypatch.undo()
    assert torch.equal(second.sequences, greedy(model, turn, 6))


def test_the_returned_state_has_read_all_but_the_last_token():
    model = talking_model()
    out = generate(model, prompt(2), max_new_tokens=6, do_sample=False, return_dict_in_generate=True)
    assert out.cache.get_seq_length() == 10
    expected = memory_of(model(out.sequences[:, :-1]).cache)
    torch.testing.assert_close(memory_of(out.cache), expected, rtol=0, atol=1e-5)


def test_num_return_sequences_samples_each_copy_of_each_prompt():
    model = talking_model()
    torch.manual_seed(5)
    options: dict[str, Any] = dict(max_new_tokens=NEW, do_sample=True, top_k=0)
    out = generate(model, prompt(2), num_return_sequences=3, **options)
    assert out.shape == (6, 5 + NEW)
    torch.manual_seed(5)
    assert torch.equal(out, generate(model, prompt(2).repeat_interleave(3, dim=0), **options))
    assert len({tuple(row) for row in out.tolist()}) == 6


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_prompt_lookup_equals_greedy(cell):
    model = talking_model(cell)
    ids = torch.cat([greedy(model, prompt()), prompt()], dim=1)  # so that there is much to look up
    out = generate(model, ids, max_new_tokens=NEW, do_sample=False, prompt_lookup_num_tokens=3)
    assert torch.equal(out, greedy(model, ids))


def drafting(assistant: SMTForCausalLM, tokens: int) -> SMTForCausalLM:
    """An assistant that always drafts so many tokens, however unsure it is of them."""
    config = assistant.generation_config
    assert config is not None
    config.num_assistant_tokens = tokens
    config.num_assistant_tokens_schedule = "constant"
    config.assistant_confidence_threshold = 0.0
    return assistant


@pytest.mark.parametrize("drafted", [1, 2, 5])
@pytest.mark.parametrize("cell", ["elman", "transformer"])
def test_assisted_decoding_equals_greedy_whatever_becomes_of_the_drafts(cell, drafted):
    model = talking_model(cell)
    assistant = drafting(talking_model(cell), drafted)
    with torch.no_grad():  # so that the drafts are right now and then
        assistant.lm_head.weight.add_(0.1 * torch.randn_like(assistant.lm_head.weight))
    out = generate(model, prompt(), max_new_tokens=NEW, do_sample=False, assistant_model=assistant)
    assert torch.equal(out, greedy(model, prompt()))


def test_a_model_that_assists_itself_equals_greedy():
    model, twin = talking_model(), drafting(talking_model(), 4)
    out = generate(model, prompt(), max_new_tokens=NEW, do_sample=False, assistant_model=twin)
    assert torch.equal(out, greedy(model, prompt()))


def test_generate_keeps_no_graph_and_leaves_the_weights_alone():
    model = talking_model().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    out = generate(model, prompt(), max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    assert memory_of(out.cache).grad_fn is None
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())
