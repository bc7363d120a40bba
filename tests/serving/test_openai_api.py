"""The OpenAI API over a tiny model: what it says is what the model generates, and what it counts is true."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from asgi import Answered, ask, asked_of

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import byte_tokenizer
from smt_hf.serving import stream
from smt_hf.serving.engine import Engine
from smt_hf.serving.fields import CHAT, RESPONSES
from smt_hf.serving.gate import Gate, Limits
from smt_hf.serving.openai_api import OpenAIApi
from smt_hf.serving.stores import MemoryStore
from smt_hf.serving.text import Text

TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:"
PROMPTS = ["Once upon", "x", "é and more of it"]


def ascii_model(seed: int = 0) -> SMTForCausalLM:
    """Random weights that say letters alone, so that text and tokens are the same length."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_memory_tokens": 2, "num_attention_heads": 2}
    model = SMTForCausalLM(
        SMTConfig(vocab_size=258, num_readout_layers=1, eos_token_id=256, pad_token_id=257, **sizes)
    )
    letters = torch.zeros(258).index_fill_(0, torch.arange(97, 123), 1.0)
    head = model.lm_head.weight.data
    head[letters == 0] = 0.0
    head[:, 0] = torch.where(letters == 1, head[:, 0].abs() + 1, head[:, 0])
    return model.eval()


@pytest.fixture(scope="module")
def model() -> SMTForCausalLM:
    return ascii_model()


@pytest.fixture(scope="module")
def engine(model: SMTForCausalLM) -> Iterator[Engine]:
    with Engine(model, max_batch=8, store=MemoryStore()) as engine:
        yield engine


@pytest.fixture
def gate(engine: Engine) -> Gate:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    limits = Limits(tokens=500, prompt=1000)
    return Gate(OpenAIApi(engine, tokenizer, "mine", limits), "mine", limits=limits)


def continued(model: SMTForCausalLM, prompt: str, tokens: int) -> str:
    ids = torch.tensor([list(prompt.encode())])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return str(byte_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def greedy(**fields: Any) -> dict[str, Any]:
    return {"temperature": 0, "max_tokens": 12, **fields}


def test_a_list_of_prompts_has_the_answers_that_each_has_in_generate(gate, model):
    answer = ask(gate, greedy(prompt=PROMPTS)).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["text"] for choice in answer["choices"]] == [continued(model, one, 12) for one in PROMPTS]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    read = sum(len(one.encode()) for one in PROMPTS)
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (read, 36, read + 36)
    by_ids = ask(gate, greedy(prompt=[list(one.encode()) for one in PROMPTS])).json
    assert by_ids["choices"] == answer["choices"]
    assert by_ids["usage"]["prompt_tokens_details"]["cached_tokens"] == read


def test_a_stream_says_the_same_in_pieces(gate):
    asked = greedy(prompt=PROMPTS, n=2, stop=["q", "zz"])
    whole = ask(gate, asked).json
    *chunks, last, done = ask(gate, {**asked, "stream": True, "stream_options": {"include_usage": True}}).events
    assert done == "[DONE]" and last["choices"] == []
    texts, reasons = [""] * 6, [None] * 6
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert reasons == [choice["finish_reason"] for choice in whole["choices"]]
    for name in ("prompt_tokens", "completion_tokens"):
        assert last["usage"][name] == whole["usage"][name]


def test_a_text_ends_before_a_stop_string_and_goes_on_without_one(gate, model):
    text = continued(model, "Once upon", 12)
    stop = text[5:7]
    answer = ask(gate, greedy(prompt="Once upon", stop=["nowhere", stop])).json["choices"][0]
    assert answer["text"] == text[: text.index(stop)] and answer["finish_reason"] == "stop"
    other = ask(gate, greedy(prompt="Once upon", stop=[text[-1] + "#"])).json["choices"][0]
    assert other["text"] == text  # the last letter was held back


def test_choices_differ_and_a_seed_repeats_them(gate):
    def texts(**fields: Any) -> list[str]:
        answer = ask(gate, {"prompt": "Once upon", "max_tokens": 12, "n": 3, **fields}).json
        return [choice["text"] for choice in answer["choices"]]

    assert len(set(texts(seed=1))) == 3
    assert texts(seed=1) == texts(seed=1) != texts(seed=2)
    assert texts() != texts()


def test_logprobs_and_echo_tell_of_prompt_and_answer(gate, model):
    answer = ask(gate, greedy(prompt="Once", max_tokens=3, logprobs=2, echo=True)).json["choices"][0]
    told = answer["logprobs"]
    ids = list(answer["text"].encode())
    said = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert answer["text"].startswith("Once") and "".join(told["tokens"]) == answer["text"]
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
    wanted = [said[place, ids[place + 1]].item() for place in range(len(ids) - 1)]
    assert told["token_logprobs"][1:] == pytest.approx(wanted, abs=1e-4)
    assert told["text_offset"] == list(range(len(ids)))
    nothing = ask(gate, greedy(prompt="Once", max_tokens=0, logprobs=0, echo=True)).json
    assert nothing["choices"][0]["text"] == "Once" and len(nothing["choices"][0]["logprobs"]["tokens"]) == 4
    assert nothing["usage"]["completion_tokens"] == 0


def test_tokens_of_one_character_begin_where_it_does(gate):
    """Each has a byte of it, which alone is no text."""
    asked = greedy(prompt="a\N{GRINNING FACE}b", max_tokens=2, logprobs=0, echo=True)
    told = ask(gate, asked).json["choices"][0]["logprobs"]
    assert told["text_offset"] == [0, 1, 1, 1, 1, 2, 3, 4]
    *events, _ = ask(gate, {**asked, "stream": True}).events
    pieces = [event["choices"][0].get("logprobs") for event in events]
    assert [offset for piece in pieces if piece for offset in piece["text_offset"]] == told["text_offset"]


def test_chat_goes_through_the_template_and_streams_in_the_order_of_the_api(gate, model):
    messages = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Hi"}]
    said = continued(model, "s:Be.\nu:Hi\na:", 12)
    asked = greedy(messages=messages, logprobs=True, top_logprobs=2)
    choice = ask(gate, asked, CHAT).json["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": said}
    lines = choice["logprobs"]["content"]
    assert "".join(line["token"] for line in lines) == said and len(lines[0]["top_logprobs"]) == 2
    assert lines[0]["bytes"] == [ord(said[0])]
    first, *rest, done = ask(gate, {**asked, "stream": True}, CHAT).events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""} and done == "[DONE]"
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in rest) == said


def test_a_response_goes_on_from_the_one_before_and_reads_only_what_is_new(gate, model):
    first = ask(gate, {"input": "Hi", "temperature": 0, "max_output_tokens": 12}, RESPONSES).json
    said = first["output"][0]["content"][0]["text"]
    assert said == continued(model, "u:Hi\na:", 12) and first["status"] == "incomplete"
    asked = {"input": "More", "temperature": 0, "max_output_tokens": 12, "previous_response_id": first["id"]}
    second = ask(gate, asked, RESPONSES).json
    whole = f"u:Hi\na:{said}\nu:More\na:"
    assert second["output"][0]["content"][0]["text"] == continued(model, whole, 12)
    assert second["usage"]["input_tokens_details"]["cached_tokens"] == len(f"u:Hi\na:{said}") - 1
    events = ask(gate, {**asked, "stream": True}, RESPONSES).events
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = "".join(event["delta"] for event in events if event["type"].endswith("output_text.delta"))
    assert (
        deltas
        == second["output"][0]["content"][0]["text"]
        == events[-1]["response"]["output"][0]["content"][0]["text"]
    )
    gone = ask(gate, {**asked, "previous_response_id": "resp_0"}, RESPONSES)
    assert gone.status == 404 and "resp_0" in gone.sentence


def test_what_a_stop_string_ended_is_not_read_again(model):
    text = continued(model, "Once upon", 12)
    with Engine(model, store=MemoryStore()) as engine:
        gate = Gate(OpenAIApi(engine, byte_tokenizer(), "mine", Limits()), "mine")
        stopped = ask(gate, greedy(prompt="Once upon", stop=text[8])).json
        assert stopped["choices"][0]["text"] == text[: text.index(text[8])]
        said = "Once upon" + text[: text.index(text[8]) + 1]
        usage = ask(gate, greedy(prompt=said + " more")).json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == len(said) - 1


def test_the_store_is_asked_beside_the_event_loop(model):
    threads: list[int] = []

    class Watched(MemoryStore):
        def known(self, keys):
            threads.append(threading.get_ident())
            return super().known(keys)

    with Engine(model, store=Watched()) as engine:
        gate = Gate(OpenAIApi(engine, byte_tokenizer(), "mine", Limits()), "mine")
        assert ask(gate, greedy(prompt="Once upon")).status == 200
    assert threads and threading.get_ident() not in threads


def test_penalties_and_bias_change_what_is_said(gate, model):
    def said(**fields: Any) -> str:
        return ask(gate, greedy(prompt="Once upon", max_tokens=20, **fields)).json["choices"][0]["text"]

    assert len(set(said(frequency_penalty=2, presence_penalty=2))) > len(set(said()))
    assert said(logit_bias={"35": 100}) == "#" * 20


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "x" * 1001}, "1,001 tokens; this server reads 1,000"),
        ({"prompt": [1, 999]}, "token id 999"),
        ({"prompt": "x", "logit_bias": {"999": 1}}, "token id 999"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_in_one_sentence(gate, fields, named):
    answered = ask(gate, fields)
    assert answered.status == 400 and named in answered.sentence and "\n" not in answered.sentence


def test_without_a_chat_template_chat_is_refused_and_a_template_that_refuses_is_told(engine):
    tokenizer = byte_tokenizer()
    gate = Gate(OpenAIApi(engine, tokenizer, "mine", Limits()), "mine")
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    assert "no chat template" in ask(gate, asked, CHAT).sentence
    tokenizer.chat_template = "{{ raise_exception('only assistants') }}"
    assert "only assistants" in ask(gate, asked, CHAT).sentence


def test_the_model_its_health_and_its_figures(gate, engine):
    assert ask(gate, path="/health", method="GET").json == {"status": "ok"}
    (listed,) = ask(gate, path="/v1/models", method="GET").json["data"]
    assert listed["id"] == "mine" == ask(gate, path="/v1/models/mine", method="GET").json["id"]
    figures = ask(gate, path="/metrics", method="GET").body
    assert re.search(r"^# TYPE smt_tokens_generated counter\nsmt_tokens_generated \d+$", figures, re.MULTILINE)
    assert re.search(r"^smt_store_hits \d+$", figures, re.MULTILINE)


def test_too_many_requests_are_told_to_come_back(model):
    with Engine(model, max_batch=1, max_queue=1) as engine:
        gate = Gate(OpenAIApi(engine, byte_tokenizer(), "mine", Limits()), "mine")
        refused = ask(gate, {"prompt": "x", "n": 40, "max_tokens": 50})
        assert refused.status == 429 and refused.headers["retry-after"] == "1"
        assert ask(gate, {"prompt": "x", "max_tokens": 3}).status in (200, 429)


def test_a_row_is_free_as_soon_as_its_client_has_left(gate, engine):
    body = json.dumps({"prompt": "x", "max_tokens": 500, "logit_bias": {"97": 100}, "stream": True}).encode()

    async def leave_and_wait() -> None:
        # In one event loop: what it has begun to submit is given up there.
        for _ in range(3):
            await asked_of(gate, "POST", "/v1/completions", [body], {}, leaves_after=0.0)
        while engine.stats()["cancelled"] < before + 3:
            await asyncio.sleep(0.001)

    before = engine.stats()["cancelled"]
    asyncio.run(asyncio.wait_for(leave_and_wait(), 10))
    assert engine.stats()["generating"] == engine.stats()["queued"] == 0


@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_stops_reading_frees_its_row_and_hears_why(gate, engine, monkeypatch, n):
    monkeypatch.setattr(stream, "MOST_UNREAD", 40)
    asked = greedy(prompt="Once upon", max_tokens=400, n=n, logit_bias={"97": 100})
    before = engine.stats()["cancelled"]

    def stops_reading() -> bool:
        stats = engine.stats()
        return stats["cancelled"] < before + n or stats["generating"] > 0

    body = json.dumps({**asked, "stream": True}).encode()
    answered = asyncio.run(asked_of(gate, "POST", "/v1/completions", [body], {}, stops_reading=stops_reading))
    *chunks, last = answered.events
    assert "more than 40 tokens waited unread" in last["error"]["message"]
    texts = [""] * n
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert max(map(len, texts)) > 40 and set("".join(texts)) == {"a"}
    whole = ask(gate, asked).json  # collected as it comes: not bounded
    assert [len(choice["text"]) for choice in whole["choices"]] == [400] * n


def test_a_client_that_reads_nothing_does_not_hold_its_place_for_ever(model):
    limits = Limits(tokens=10**6, seconds=0.05, body_seconds=0.05)
    with Engine(model) as engine:
        gate = Gate(OpenAIApi(engine, byte_tokenizer(), "mine", limits), "mine", limits=limits)
        body = json.dumps({"prompt": "x", "max_tokens": 10**6, "stream": True}).encode()
        asyncio.run(asked_of(gate, "POST", "/v1/completions", [body], {}, stops_reading=lambda: True))
        assert gate.waiting == 0


def test_a_server_that_ends_breaks_an_answer_off_without_a_traceback(gate, engine):
    """It cancels what is under way, and logs what its application raises."""
    body = json.dumps({"prompt": "x", "max_tokens": 500, "stream": True}).encode()
    before = engine.stats()["steps"]  # its row may be done before this thread gets to look

    async def serve_and_end() -> None:
        work = asked_of(gate, "POST", "/v1/completions", [body], {}, stops_reading=lambda: True)
        answering = asyncio.ensure_future(work)
        while gate.waiting == 0 or engine.stats()["steps"] == before:
            await asyncio.sleep(0.001)
        answering.cancel()
        await answering

    asyncio.run(serve_and_end())
    assert gate.waiting == 0


def test_a_failure_in_a_stream_is_its_last_event(gate, engine, monkeypatch):
    step = engine.step

    def failing(*given: Any) -> Any:
        if engine.stats()["steps"] > before + 5:
            raise MemoryError("no room")
        return step(*given)

    before = engine.stats()["steps"]
    monkeypatch.setattr(engine, "step", failing)
    answered = ask(gate, {"prompt": "x", "max_tokens": 300, "logit_bias": {"97": 100}, "stream": True})
    assert answered.status == 200 and "no room" in answered.events[-1]["error"]["message"]
    assert ask(gate, {"prompt": "x", "max_tokens": 300}).status == 500


def test_an_answer_that_takes_too_long_is_told(model):
    with Engine(model) as engine:
        limits = Limits(tokens=10**6, seconds=0.05)
        gate = Gate(OpenAIApi(engine, byte_tokenizer(), "mine", limits), "mine", limits=limits)
        late: Answered = ask(gate, {"prompt": "x", "max_tokens": 10**6, "logit_bias": {"97": 100}})
        assert late.status == 503 and "more than 0.05 seconds" in late.sentence


@pytest.mark.parametrize("stops", [[], ["zzz"], ["€b"], ["b", "€"], ["\N{GRINNING FACE}c"]])
def test_text_comes_in_whole_characters_and_ends_before_a_stop(stops):
    whole = "aé€b\N{GRINNING FACE}c"
    text = Text(byte_tokenizer(), stops)
    parts = [text.add(token) for token in whole.encode() if not text.stopped]
    shown = "".join(parts) + ("" if text.stopped else text.end())
    cut = min((whole.index(stop) for stop in stops if stop in whole), default=len(whole))
    assert shown == whole[:cut] and "\N{REPLACEMENT CHARACTER}" not in shown
    assert text.stopped == (cut < len(whole))


def test_bytes_that_are_no_character_are_shown_at_the_end():
    text = Text(byte_tokenizer(), [])
    assert [text.add(97), text.add(0xE2), text.add(0x82)] == ["a", "", ""]
    assert text.end() == "\N{REPLACEMENT CHARACTER}"
