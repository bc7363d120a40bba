"""Many texts in one batch, and each has the tokens that it would have alone."""

import asyncio
import itertools
import random
import time

import pytest
import torch
from tiny_engine import END, VOCAB, alone, greedy, random_prompts, tiny_model
from transformers import GenerationConfig, LogitsProcessor

from smt_hf.serving import stream
from smt_hf.serving.choosing import Choosing, choose, parts_of
from smt_hf.serving.engine import Engine
from smt_hf.serving.stream import QueueFull, ShuttingDown, Stream, Token

SAMPLED = GenerationConfig(max_new_tokens=12, do_sample=True, temperature=0.7, top_k=8, top_p=0.9)


class Raises(LogitsProcessor):
    """Fails at the third token."""

    def __init__(self, prompt_tokens: int):
        self.at = prompt_tokens + 2

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] >= self.at:
            raise ArithmeticError("a processor of this request")
        return scores


@pytest.mark.parametrize("cell", ["gru", "transformer"])
@pytest.mark.parametrize("max_batch", [1, 7])
def test_greedy_answers_are_those_of_generate(cell, max_batch):
    model, prompts = tiny_model(cell), random_prompts(20)
    with Engine(model, max_batch=max_batch) as engine:
        assert engine.generate(prompts, greedy(15)) == [alone(model, one, greedy(15)) for one in prompts]


def test_an_end_token_ends_a_text_and_is_its_last():
    model = tiny_model()
    model.lm_head.weight.data[END] += 0.3
    with Engine(model) as engine:
        streams = [engine.submit(one, greedy(30)) for one in random_prompts(20)]
        answers = [[token.id for token in stream] for stream in streams]
    ended = [answer for answer in answers if END in answer]
    assert ended and all(answer.index(END) == len(answer) - 1 for answer in ended)
    reasons = ["stop" if END in answer else "length" for answer in answers]
    assert [stream.finish_reason for stream in streams] == reasons and "stop" in reasons


@pytest.mark.parametrize("seed", range(3))
def test_whoever_joins_leaves_or_fails_the_others_get_what_they_get_alone(seed):
    """A random schedule; rows are few, prompts of all lengths, a chunk small, so that all kinds meet."""
    rng = random.Random(seed)
    model, prompts = tiny_model(seed=seed), random_prompts(40, longest=60, seed=seed)
    config = greedy(20)
    with Engine(model, max_batch=6, prompt_chunk=4, max_queue=100) as engine:
        streams = []
        for place, prompt in enumerate(prompts):
            fails = [Raises(len(prompt))] if place % 7 == 3 else []
            streams.append(engine.submit(prompt, config, logits_processor=fails))
            if rng.random() < 0.3:
                time.sleep(0.001 * rng.random())
            if rng.random() < 0.2:
                streams[rng.randrange(len(streams))].cancel()
        for place, (prompt, stream) in enumerate(zip(prompts, streams, strict=True)):
            if place % 7 == 3:
                if not stream.cancelled and len(alone(model, prompt, config)) > 2:
                    with pytest.raises(RuntimeError, match="a processor of this request"):
                        list(stream)
                continue
            answer, whole = [token.id for token in stream], alone(model, prompt, config)
            assert answer == whole[: len(answer)] and (stream.cancelled or answer == whole)
        assert engine.stats()["generating"] == engine.stats()["reading"] == 0


def test_draws_depend_on_the_seed_and_not_on_the_company():
    model, prompts = tiny_model(), random_prompts(12)
    with Engine(model) as engine:
        together = engine.generate(prompts, SAMPLED, seed=5)
        by_one = [engine.generate([one], SAMPLED, seed=5)[0] for one in prompts]
        other = engine.generate(prompts, SAMPLED, seed=6)
    assert together == by_one != other


def test_draws_have_the_probabilities_of_the_processed_scores():
    model = tiny_model()
    config = GenerationConfig(max_new_tokens=1, do_sample=True, temperature=0.5, top_k=4)
    rows = [Choosing(model, config, [1], seed, None) for seed in range(2000)]
    scores = torch.randn(VOCAB, generator=torch.Generator().manual_seed(0))
    ids, _, failures = choose(rows, parts_of(rows, scores.device), scores.expand(len(rows), -1))
    assert not failures
    top = scores.topk(4)
    expected = torch.zeros(VOCAB).scatter(0, top.indices, (top.values / 0.5).softmax(0))
    shares = torch.bincount(ids, minlength=VOCAB) / len(rows)
    assert (shares - expected).abs().max() < 0.04
    assert (shares[expected == 0] == 0).all()


def test_the_first_draw_takes_the_first_token_that_has_any_probability():
    row = Choosing(tiny_model(), GenerationConfig(max_new_tokens=1, do_sample=True), [1], 0, None)
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]])
    for drawn, token in ((0.0, 1), (0.49, 1), (0.5, 2), (1 - 2**-24, 2)):
        row.draws = [drawn]
        ids, _, _ = choose([row], parts_of([row], logits.device), logits)
        assert ids.tolist() == [token]


@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"sequence_bias": [[[4], 5.0], [[7, 8], -9.0]]},
        {"bad_words_ids": [[5], [6]]},
        {"suppress_tokens": [1, 2, 9]},
        {"min_new_tokens": 12},
        {"max_length": 45, "max_new_tokens": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_processors_do_what_they_do_in_generate(changes):
    model, prompts = tiny_model(), random_prompts(6)
    config = GenerationConfig(**{"max_new_tokens": 15, "do_sample": False, **changes})
    with Engine(model) as engine:
        plain = [engine.submit(one, greedy(15)) for one in prompts]  # company with other wishes
        assert engine.generate(prompts, config) == [alone(model, one, config) for one in prompts]
        assert [[token.id for token in one] for one in plain] == [
            alone(model, one, greedy(15)) for one in prompts
        ]


def test_logprobs_are_those_of_the_model_for_prompt_and_answer():
    model, (prompt,) = tiny_model(), random_prompts(1, seed=3)
    with Engine(model, prompt_chunk=5) as engine:
        stream = engine.submit(prompt, greedy(6), logprobs=3, prompt_logprobs=True)
        tokens = list(stream)
    ids = prompt + [token.id for token in tokens]
    said = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for place, token in enumerate([*stream.prompt_logprobs, *tokens]):
        assert token.id == ids[place + 1]
        assert token.logprob == pytest.approx(said[place, token.id].item(), abs=1e-4)
        top = said[place].topk(3)
        assert [one for one, _ in token.top] == top.indices.tolist()
        assert [number for _, number in token.top] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_a_long_prompt_is_read_beside_the_others():
    model = tiny_model()
    with Engine(model, prompt_chunk=4) as engine:
        running = iter(engine.submit([1, 2], greedy(10**6, eos_token_id=END + VOCAB)))
        next(running)
        long = engine.submit([5] * 20_000, greedy(1))
        before = engine.stats()["tokens_read"]
        short = engine.submit([7] * 3, greedy(1))
        assert len(list(short)) == 1
        assert long.finish_reason is None
        # An iteration reads at most 4 tokens of the long prompt, and the short one needs two of them.
        assert engine.stats()["tokens_read"] - before < 2_000
        assert len(list(itertools.islice(running, 50))) == 50 and long.finish_reason is None
        long.cancel()


def test_a_text_goes_on_from_a_stored_state():
    model, (start, prompt) = tiny_model(), random_prompts(2, seed=5)
    state = model(torch.tensor([start]), use_cache=True).cache
    with Engine(model, start_state=state) as engine:
        (answer,) = engine.generate([prompt], greedy(8))
    assert answer == alone(model, start + prompt, greedy(8))


def test_streams_are_read_by_coroutines_too():
    model, prompts = tiny_model(), random_prompts(10)

    async def read(engine: Engine, prompt: list[int]) -> list[int]:
        return [token.id async for token in engine.submit(prompt, greedy(15))]

    async def read_all(engine: Engine) -> list[list[int]]:
        return await asyncio.gather(*(read(engine, one) for one in prompts))

    with Engine(model, max_batch=4) as engine:
        assert asyncio.run(read_all(engine)) == [alone(model, one, greedy(15)) for one in prompts]


@pytest.fixture
def few_unread(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(stream, "MOST_UNREAD", 20)
    return 20


@pytest.mark.parametrize("reader", ["thread", "coroutine"])
def test_what_nobody_reads_ends_with_what_was_made_and_a_reason(reader, few_unread):
    model, endless = tiny_model(), greedy(10**6, eos_token_id=END + VOCAB)
    got: list[int] = []

    def take(token: Token) -> None:
        """The first one, and then nothing before the row has been given up."""
        got.append(token.id)
        while request.finish_reason is None:
            time.sleep(0.001)

    async def read() -> None:
        async for token in request:
            take(token)

    with Engine(model) as engine:
        request = engine.submit([1], endless)
        with pytest.raises(RuntimeError, match="more than 20 tokens waited unread; read faster") as refused:
            if reader == "thread":
                for token in request:
                    take(token)
            else:
                asyncio.run(read())
        assert str(refused.value).count(".") == 1 and request.finish_reason == "error"
        assert few_unread < len(got) <= few_unread + 2
        assert got == alone(model, [1], greedy(len(got), eos_token_id=END + VOCAB))
        assert engine.stats()["generating"] == 0 and engine.stats()["cancelled"] == 1


def test_who_wants_the_whole_gets_any_number_of_tokens(few_unread):
    model, many = tiny_model(), greedy(10 * few_unread, eos_token_id=END + VOCAB)
    with Engine(model, max_batch=3) as engine:
        whole = alone(model, [1], many)
        assert engine.generate([[1]] * 7, many) == [whole] * 7
        request = engine.submit([1], many, whole=True)
        assert [token.id for token in request.collect()] == whole


def test_a_step_that_fails_fails_its_rows_and_no_later_request(monkeypatch):
    model, (prompt,) = tiny_model(), random_prompts(1)
    with Engine(model) as engine:
        step = engine.step
        monkeypatch.setattr(engine, "step", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
        with pytest.raises(RuntimeError, match="no room"):
            list(engine.submit(prompt, greedy(5)))
        monkeypatch.setattr(engine, "step", step)
        assert engine.generate([prompt], greedy(5)) == [alone(model, prompt, greedy(5))]
        assert engine.stats()["failed"] == 1


def test_more_requests_than_may_wait_and_requests_after_the_end_are_refused():
    model = tiny_model()
    endless = greedy(10**6, eos_token_id=END + VOCAB)
    engine = Engine(model, max_batch=1, max_queue=1)
    first = engine.submit([1], endless)
    next(iter(first))
    second = engine.submit([2], endless)
    with pytest.raises(QueueFull, match="1 requests are waiting"):
        engine.submit([3], endless)
    engine.close()
    assert first.finish_reason == second.finish_reason == "cancelled"
    with pytest.raises(ShuttingDown):
        engine.submit([3], greedy(1))


def test_what_is_under_way_ends_before_the_engine_does():
    model, prompts = tiny_model(), random_prompts(6)
    engine = Engine(model, max_batch=2)
    streams = [engine.submit(one, greedy(15)) for one in prompts]
    engine.close(drain_seconds=60)
    answers = [[token.id for token in stream] for stream in streams]
    assert answers == [alone(model, one, greedy(15)) for one in prompts]


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        ([], {}, "no tokens"),
        ([1, VOCAB], {}, f"token id {VOCAB}; ids of this model are 0 to {VOCAB - 1}"),
        ([1], {"logprobs": 21}, "logprobs is 21"),
        ([1], {"generation_config": GenerationConfig(num_beams=2)}, "num_beams is 2"),
        (
            [1],
            {"generation_config": GenerationConfig(num_return_sequences=2, do_sample=True)},
            "num_return_sequences",
        ),
        ([1], {"generation_config": GenerationConfig(guidance_scale=2.0)}, "guidance_scale is 2.0"),
        ([1], {"generation_config": GenerationConfig(stop_strings=["a"])}, "stop_strings"),
        ([1] * 30, {"generation_config": GenerationConfig(max_length=30)}, "max_new_tokens is 0"),
    ],
)
def test_what_a_row_cannot_do_is_refused_in_one_sentence(prompt, options, said):
    with Engine(tiny_model()) as engine, pytest.raises(ValueError, match=said):
        engine.submit(prompt, **options)


@pytest.mark.parametrize("looks", range(5))
def test_a_row_that_is_given_up_between_two_looks_has_an_end_too(looks):
    class Late(Stream):
        """Given up as soon as it has been looked at so many times."""

        left = looks

        @property
        def cancelled(self) -> bool:
            self.left -= 1
            return self.left < 0

        @cancelled.setter
        def cancelled(self, value: bool) -> None:
            """Nobody else gives it up."""

    with Engine(tiny_model()) as engine:
        stream = engine.submit([1], greedy(10**6, eos_token_id=END + VOCAB))
        while not engine.rows:
            time.sleep(0.001)
        late = Late(1, False)
        engine.rows[0].stream = late
        late.collect()
    assert late.finish_reason == "cancelled" and stream.finish_reason is None


def test_more_prompts_than_may_wait_are_generated_one_after_another():
    model, prompts = tiny_model(), random_prompts(9)
    with Engine(model, max_batch=4, max_queue=1) as engine:
        assert engine.generate(prompts, greedy(5)) == [alone(model, one, greedy(5)) for one in prompts]


def test_requests_that_were_given_up_while_they_waited_make_room():
    model = tiny_model()
    endless = greedy(10**6, eos_token_id=END + VOCAB)
    with Engine(model, max_batch=1, max_queue=2) as engine:
        first = engine.submit([1], endless)
        next(iter(first))
        waiting = [engine.submit([2], endless) for _ in range(2)]
        for stream in waiting:
            stream.cancel()
        third = engine.submit([3], greedy(2))
        assert [stream.collect() for stream in waiting] == [[], []]
        assert {stream.finish_reason for stream in waiting} == {"cancelled"}
        first.cancel()
        assert len(third.collect()) == 2


def test_scores_that_are_not_finite_fail_their_row_alone():
    model, config = tiny_model(), GenerationConfig(max_new_tokens=3, do_sample=True)
    rows = [Choosing(model, config, [1], seed, None) for seed in range(3)]
    logits = torch.randn(3, VOCAB)
    alone_ids, _, _ = choose(rows, parts_of(rows, logits.device), logits)
    again = [Choosing(model, config, [1], seed, None) for seed in range(3)]
    broken = logits.clone()
    broken[1, 5] = float("nan")
    ids, _, failures = choose(again, parts_of(again, logits.device), broken)
    assert list(failures) == [1] and ids[[0, 2]].equal(alone_ids[[0, 2]])
