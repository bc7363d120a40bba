"""What stands before the API: fields are honoured or refused, strangers kept out, and all has limits."""

import asyncio
import json
import time
from typing import Any

import pytest
from asgi import Answered, ask, asked_of

from smt_hf.serving.fields import CHAT, COMPLETIONS, DEFAULT_TOKENS, RESPONSES, checked
from smt_hf.serving.gate import Gate, Limits

MESSAGES = [{"role": "user", "content": "Hello"}]
SMALL = Limits(tokens=50, prompt=10, body=400, body_seconds=0.1, waiting=2)


class Behind:
    """An API that notes what reaches it, and answers 200 after a while."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.asked, self.left = seconds, list[dict[str, Any]](), 0

    async def get(self, path: str, reply: Any) -> None:
        await reply.json(200, {"path": path})

    async def post(self, path: str, asked: dict[str, Any], reply: Any) -> None:
        self.asked.append(asked)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.left += 1
            raise
        await reply.json(200, {})


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def gate(behind: Behind) -> Gate:
    return Gate(behind, "mine", limits=SMALL)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a template of the client": ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
    "many answers": ({"n": 65}, "n is 65"),
    "true for one": ({"n": True}, "n is True"),
    "the best of several": ({"best_of": 3}, "best_of is 3"),
    "a word for an echo": ({"echo": "yes"}, "echo"),
    "many probabilities": ({"logprobs": 21}, "logprobs is 21"),
    "a large penalty": ({"frequency_penalty": -3}, "frequency_penalty is -3"),
    "usage and more": ({"stream_options": {"foo": 1}}, "stream_options has foo"),
    "tools": ({"tools": [{}]}, "tools is"),
    "JSON alone": ({"response_format": {"type": "json_object"}}, "response_format"),
    "settings of the library": ({"generation_config": "{}"}, "generation_config"),
    "an unknown field": ({"foo": 1}, "foo is 1"),
    "another model": ({"model": "/etc"}, "'/etc'"),
    "too many tokens": ({"max_tokens": 10**9}, "max_tokens is 1000000000"),
    "no tokens": ({"max_tokens": 0}, "max_tokens is 0"),
    "half a token": ({"max_tokens": 1.5}, "max_tokens is 1.5"),
    "true for tokens": ({"max_tokens": True}, "max_tokens is True"),
    "a hot temperature": ({"temperature": 3}, "temperature is 3"),
    "a tiny temperature": ({"temperature": 1e-300}, "temperature is 1e-300"),
    "a word for a temperature": ({"temperature": "hot"}, "temperature is 'hot'"),
    "no probability": ({"top_p": 0}, "top_p is 0"),
    "a huge seed": ({"seed": 2**64}, "seed is"),
    "a word for a stream": ({"stream": "yes"}, "stream is 'yes'"),
    "five stops": ({"stop": list("abcde")}, "stop is"),
    "an empty stop": ({"stop": [""]}, "stop is"),
    "a number to stop at": ({"stop": [1]}, "stop is [1]"),
    "a bias of words": ({"logit_bias": {"a": 1}}, "logit_bias is"),
}


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_ignored_or_cannot_be_is_refused_in_one_sentence(case, path, gate, behind):
    fields, named = REFUSED[case]
    asked = {"messages": MESSAGES} if path == CHAT else {"prompt": "One"}
    answered = ask(gate, {**asked, **fields}, path)
    said = answered.sentence
    assert answered.status == 400 and named in said and said.endswith(".") and "\n" not in said
    assert behind.asked == []


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (COMPLETIONS, {"prompt": "a\ud83d"}),
        (COMPLETIONS, {"prompt": ["a", "\ud83d"], "stream": True}),
        (CHAT, {"messages": [{"role": "user", "content": "\udc00"}]}),
        (CHAT, {"messages": MESSAGES, "stop": ["\ud83d"]}),
    ],
)
def test_half_a_character_is_refused_in_one_sentence(path, fields, gate, behind):
    answered = ask(gate, fields, path)
    assert answered.status == 400 and behind.asked == []
    assert "half of a character; send whole ones." in answered.sentence and answered.sentence.isascii()


def test_two_limits_that_differ_are_refused_and_the_same_one_twice_is_taken(gate, behind):
    asked = {"messages": MESSAGES, "max_tokens": 5}
    answered = ask(gate, {**asked, "max_completion_tokens": 9}, CHAT)
    assert answered.status == 400 and behind.asked == []
    assert answered.sentence == "max_completion_tokens is 9 and max_tokens is 5; give one of them."
    assert ask(gate, {**asked, "max_completion_tokens": 5}, CHAT).status == 200
    assert behind.asked[0]["max_tokens"] == 5


@pytest.mark.parametrize("prompt", [None, {"a": 1}, [], [None], [1, "a"], [[1.5]], ["x"] * 65])
def test_a_prompt_that_is_no_text_and_no_ids_is_refused(gate, behind, prompt):
    answered = ask(gate, {"prompt": prompt})
    assert answered.status == 400 and answered.sentence.startswith("prompt ") and behind.asked == []


@pytest.mark.parametrize(("path", "name"), [(CHAT, "messages"), (RESPONSES, "input")])
@pytest.mark.parametrize(
    "messages",
    [
        *(None, [], [1], [{"role": "user"}], [{"role": "nobody", "content": "x"}]),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}],
        [{"role": "assistant", "content": "x", "tool_calls": [{}]}],
        [{"role": "user", "content": "x", "type": "function_call_output", "status": "failed"}],
    ],
)
def test_messages_that_are_not_role_and_text_are_refused(gate, behind, path, name, messages):
    answered = ask(gate, {name: messages}, path)
    assert answered.status == 400 and ("message" in answered.sentence or name in answered.sentence)
    assert behind.asked == []


def test_metadata_of_a_response_are_an_object(gate, behind):
    refused = ask(gate, {"input": "Hi", "metadata": 5}, RESPONSES)
    assert refused.status == 400 and refused.sentence == "metadata is 5; it must be an object."
    assert behind.asked == []
    typed = [{**MESSAGES[0], "type": "message", "status": "completed"}]
    assert ask(gate, {"input": typed, "metadata": {"a": "b"}}, RESPONSES).status == 200
    assert behind.asked[0]["metadata"] == {"a": "b"} and behind.asked[0]["input"] == MESSAGES


def test_fields_that_ask_for_nothing_are_taken_out_and_the_others_reach_the_model():
    idle: dict[str, Any] = {
        "tools": [],
        "suffix": None,
        "logprobs": None,
        "best_of": 2,
        "response_format": None,
    }
    asked = {
        "prompt": "One",
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 7,
        "stream": True,
        "seed": 3,
        "n": 2,
    }
    found = checked(COMPLETIONS, {**idle, **asked}, "mine", 50)
    assert {name: found[name] for name in asked} == {**asked, "prompt": ["One"]}
    assert found["stops"] == [] and found["logprobs"] is None and not found["include_usage"]
    plain = checked(COMPLETIONS, {"prompt": [1, 2], "stop": "x", "logprobs": 0}, "m", 10**6)
    assert plain["prompt"] == [[1, 2]] and plain["stops"] == ["x"] and plain["logprobs"] == 0
    assert plain["max_tokens"] == DEFAULT_TOKENS and plain["temperature"] == 1
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    chat = checked(CHAT, {"messages": parts, "logprobs": True, "top_logprobs": 3}, "m", 50)
    assert chat["messages"] == [{"role": "user", "content": "ab"}] and chat["logprobs"] == 3
    assert checked(RESPONSES, {"input": "Hi"}, "m", 50)["input"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/reset"), ("POST", "/load_model"), ("POST", "/v1/systemone")),
        *(("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/v1/audio/transcriptions"), ("PUT", "/health")),
        *(("OPTIONS", "/v1/models"), ("POST", "/v1/completions/"), ("POST", "//reset")),
    ],
)
def test_other_paths_are_not_answered(gate, behind, method, path):
    answered = ask(gate, {"model": "/etc"}, path, method)
    status, said = answered.status, answered.sentence
    assert status == 404 and path in said and behind.asked == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "localhost.evil.example", "[::2]:8000"]
)
def test_another_name_of_this_machine_is_refused(gate, behind, host):
    assert ask(gate, {"prompt": "One"}, host=host).status == 403
    assert ask(gate, path="/v1/models", method="GET", host=host).status == 403
    assert behind.asked == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000"])
def test_its_own_names_are_taken(gate, host):
    assert ask(gate, {"prompt": "One"}, host=host).status == 200


def test_one_that_listens_everywhere_is_asked_by_address_but_by_no_foreign_name(behind):
    gate = Gate(behind, "mine", ["0.0.0.0", "here.example"])
    assert ask(gate, {"prompt": "One"}, host="10.1.2.3:8000").status == 200
    assert ask(gate, {"prompt": "One"}, host="here.example").status == 200
    assert ask(gate, {"prompt": "One"}, host="evil.example").status == 403


def test_a_page_of_another_site_is_refused(gate, behind):
    assert ask(gate, {"prompt": "One"}, origin="https://evil.example").status == 403
    assert ask(gate, {"prompt": "One"}, origin="null").status == 403
    assert ask(gate, {"prompt": "One"}, content_type="text/plain").status == 415  # what a form can send
    assert behind.asked == []
    assert ask(gate, {"prompt": "One"}, origin="http://localhost:3000").status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b'{"prompt": NaN}', b"\xff", b"[" * 390, b'{"prompt": "a", "seed": 1e999}'],
)
def test_what_is_no_json_object_is_refused(gate, behind, body):
    answered = ask(gate, raw=[body])
    status, said = answered.status, answered.sentence
    assert status == 400 and said and behind.asked == []


def test_a_body_is_limited_in_size_also_in_parts(gate, behind):
    assert ask(gate, {"prompt": "x" * 500}).status == 413
    assert ask(gate, raw=[b" " * 300, b" " * 300, b"{}"]).status == 413
    assert behind.asked == []


def test_a_body_that_does_not_come_is_not_waited_for(gate, behind):
    answered = asyncio.run(asked_of(gate, "POST", COMPLETIONS, [], {}))
    assert answered.status == 408 and behind.asked == []


def test_work_ends_when_its_client_leaves():
    behind = Behind(seconds=30)
    gate = Gate(behind, "mine")
    began = time.monotonic()
    answered = asyncio.run(asked_of(gate, "POST", COMPLETIONS, [b'{"prompt": "One"}'], {}, leaves_after=0.02))
    assert answered.status == 0 and behind.left == 1 and time.monotonic() - began < 10 and gate.waiting == 0


def test_more_requests_than_may_wait_are_turned_away_and_all_of_them_at_the_end():
    gate = Gate(Behind(seconds=0.05), "mine", limits=SMALL)
    body = json.dumps({"prompt": "One"}).encode()

    async def several() -> list[Answered]:
        return list(await asyncio.gather(*(asked_of(gate, "POST", COMPLETIONS, [body], {}) for _ in range(4))))

    answers = asyncio.run(several())
    assert sorted(one.status for one in answers) == [200, 200, 503, 503]
    gate.closing = True
    refused = ask(gate, {"prompt": "One"})
    assert refused.status == 503 and refused.headers["retry-after"] and "shutting down" in refused.sentence
    assert ask(gate, path="/health", method="GET").status == 200


def test_only_who_has_the_key_is_answered():
    behind = Behind()
    gate = Gate(behind, "mine", key="sesame")
    for given in ("", "Bearer wrong", "sesam", "Bearer é"):
        for path, method in ((COMPLETIONS, "POST"), ("/v1/models", "GET"), ("/metrics", "GET")):
            answered = ask(gate, {"prompt": "One"}, path, method, authorization=given)
            assert answered.status == 401 and "sesame" not in answered.body
    assert behind.asked == []
    assert ask(gate, {"prompt": "One"}, authorization="Bearer sesame").status == 200
    assert ask(gate, path="/health", method="GET").status == 200
    with pytest.raises(ValueError, match="key is empty"):
        Gate(behind, "mine", key="")


def test_pages_that_were_named_may_use_the_server_and_are_told_so():
    gate = Gate(Behind(), "mine", origins=["https://page.example"])
    asked = ask(gate, {"prompt": "One"}, origin="https://page.example")
    before = ask(gate, method="OPTIONS", origin="https://page.example")
    for answered in (asked, before):
        assert answered.headers["access-control-allow-origin"] == "https://page.example"
    assert (asked.status, before.status) == (200, 204)
    assert ask(gate, {"prompt": "One"}, origin="https://other.example").status == 403
    assert ask(Gate(Behind(), "mine", origins=["*"]), {"prompt": "One"}, origin="https://a.b").status == 200
