"""What stands before the server: fields are honoured or refused, strangers kept out, and all has limits."""

import asyncio
import json
import threading
from typing import Any

import pytest

from smt_hf.serving.fields import CHAT, COMPLETIONS, DEFAULT_TOKENS, checked
from smt_hf.serving.gate import REQUEST, Gate, Limits

MESSAGES = [{"role": "user", "content": "Hello"}]
SMALL = Limits(tokens=50, prompt=10, body=400, body_seconds=0.1, waiting=2)


class Behind:
    """An application that notes what reaches it, and answers 200."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.gate: Any = None
        self.seeds: list[int] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        message = await receive()
        if message["body"]:
            body = json.loads(message["body"])
            self.bodies.append(body)
            self.seeds.append(self.gate.requests[body[REQUEST]].seed)
            assert int(dict(scope["headers"])[b"content-length"]) == len(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def ask(
    gate: Gate,
    body: Any = None,
    path: str = COMPLETIONS,
    method: str = "POST",
    raw: list[bytes] | None = None,
    **headers: str,
) -> tuple[int, str]:
    """(status, the sentence of a refusal)"""
    values = {"host": "localhost:8000", "content-type": "application/json", **headers}
    scope = {
        "type": "http", "method": method, "path": path,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()],
    }  # fmt: skip
    parts = raw if raw is not None else [json.dumps(body).encode()] if body is not None else [b""]
    waiting = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    answer = json.loads(sent[1]["body"])
    return sent[0]["status"], answer.get("error", {}).get("message", "")


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def gate(behind: Behind) -> Gate:
    behind.gate = Gate(behind, "mine", limits=SMALL)
    return behind.gate


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a template of the client": ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
    "several answers": ({"n": 2}, "n is 2"),
    "true for one": ({"n": True}, "n is True"),
    "the best of several": ({"best_of": 3}, "best_of is 3"),
    "an echo": ({"echo": True}, "echo is True"),
    "probabilities": ({"logprobs": True}, "logprobs is True"),
    "top probabilities": ({"logprobs": 0}, "logprobs is 0"),
    "a presence penalty": ({"presence_penalty": 0.5}, "presence_penalty is 0.5"),
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
    "a negative penalty": ({"frequency_penalty": -1}, "frequency_penalty is -1"),
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
    status, said = ask(gate, {**asked, **fields}, path)
    assert status == 400 and named in said and said.endswith(".") and "\n" not in said
    assert behind.bodies == []


@pytest.mark.parametrize("prompt", [["One", "Two"], [1, 2], None, {"a": 1}])
def test_a_prompt_that_is_not_one_text_is_refused(gate, behind, prompt):
    status, said = ask(gate, {"prompt": prompt})
    assert status == 400 and "prompt is" in said and behind.bodies == []


@pytest.mark.parametrize(
    "messages",
    [
        *(None, [], "Hello", [1], [{"role": "user"}], [{"role": "nobody", "content": "x"}]),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}],
        [{"role": "assistant", "content": "x", "tool_calls": [{}]}],
    ],
)
def test_messages_that_are_not_role_and_text_are_refused(gate, behind, messages):
    status, said = ask(gate, {"messages": messages}, CHAT)
    assert status == 400 and "message" in said and behind.bodies == []


def test_fields_that_ask_for_nothing_are_taken_out_and_the_others_reach_the_model():
    idle: dict[str, Any] = {
            "n": 1, "best_of": 1, "echo": False, "logprobs": None, "presence_penalty": 0.0, "user": "me",
            "stream_options": {"include_usage": True}, "tools": [], "stop": [], "suffix": None}  # fmt: skip
    asked = {"prompt": "One", "temperature": 0, "top_p": 0.5, "max_tokens": 7, "stream": True, "seed": 3}
    assert checked(COMPLETIONS, {**idle, **asked}, "mine", 50) == {**asked, "model": "mine"}
    assert checked(COMPLETIONS, {"prompt": "", "stop": "x"}, "m", 10**6) == {
        "prompt": "", "stop": ["x"], "model": "m", "max_tokens": DEFAULT_TOKENS,
    }  # fmt: skip
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert checked(CHAT, {"messages": parts}, "m", 50)["messages"] == [{"role": "user", "content": "ab"}]


def test_each_request_has_its_own_seed_and_is_forgotten_at_its_end(gate, behind):
    for fields in ({"seed": 7}, {}, {}):
        assert ask(gate, {"prompt": "One", **fields}) == (200, "")
    assert behind.seeds[0] == 7 and len(set(behind.seeds)) == 3
    assert "seed" not in behind.bodies[0] and gate.requests == {} and gate.waiting == 0
    assert [body["max_tokens"] for body in behind.bodies] == [SMALL.tokens] * 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "/reset"), ("POST", "/load_model"), ("POST", "/v1/responses"), ("POST", "/v1/systemone")),
        *(("GET", "/docs"), ("GET", "/openapi.json"), ("POST", "/v1/audio/transcriptions"), ("PUT", "/health")),
        *(("OPTIONS", "/v1/models"), ("POST", "/v1/completions/"), ("POST", "//reset")),
    ],
)
def test_other_paths_are_not_answered(gate, behind, method, path):
    status, said = ask(gate, {"model": "/etc"}, path, method)
    assert status == 404 and path in said and behind.bodies == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "localhost.evil.example", "[::2]:8000"]
)
def test_another_name_of_this_machine_is_refused(gate, behind, host):
    assert ask(gate, {"prompt": "One"}, host=host)[0] == 403
    assert ask(gate, path="/v1/models", method="GET", host=host)[0] == 403
    assert behind.bodies == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000"])
def test_its_own_names_are_taken(gate, host):
    assert ask(gate, {"prompt": "One"}, host=host)[0] == 200


def test_one_that_listens_everywhere_is_asked_by_address_but_by_no_foreign_name(behind):
    behind.gate = Gate(behind, "mine", ["0.0.0.0", "here.example"])
    assert ask(behind.gate, {"prompt": "One"}, host="10.1.2.3:8000")[0] == 200
    assert ask(behind.gate, {"prompt": "One"}, host="here.example")[0] == 200
    assert ask(behind.gate, {"prompt": "One"}, host="evil.example")[0] == 403


def test_a_page_of_another_site_is_refused(gate, behind):
    assert ask(gate, {"prompt": "One"}, origin="https://evil.example")[0] == 403
    assert ask(gate, {"prompt": "One"}, origin="null")[0] == 403
    assert ask(gate, {"prompt": "One"}, content_type="text/plain")[0] == 415  # what a form can send
    assert behind.bodies == []
    assert ask(gate, {"prompt": "One"}, origin="http://localhost:3000")[0] == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b'{"prompt": NaN}', b"\xff", b"[" * 390, b'{"prompt": "a", "seed": 1e999}'],
)
def test_what_is_no_json_object_is_refused(gate, behind, body):
    status, said = ask(gate, raw=[body])
    assert status == 400 and said and behind.bodies == []


def test_a_body_is_limited_in_size_also_in_parts(gate, behind):
    assert ask(gate, {"prompt": "x" * 500})[0] == 413
    assert ask(gate, raw=[b" " * 300, b" " * 300, b"{}"])[0] == 413
    assert behind.bodies == []


def test_a_prompt_is_limited_in_tokens(gate, behind):
    status, said = ask(gate, {"prompt": "x" * 11})
    assert status == 400 and "11 tokens" in said and behind.bodies == []
    assert ask(gate, {"prompt": "x" * 10})[0] == 200


def test_a_body_that_does_not_come_is_not_waited_for(gate, behind):
    scope = {"type": "http", "method": "POST", "path": COMPLETIONS,
             "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    assert sent[0]["status"] == 408 and behind.bodies == []


def test_a_client_that_leaves_is_noted_while_the_server_behind_works():
    gone: list[threading.Event] = []

    async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        (asked,) = here.requests.values()
        gone.append(asked.gone)
        await receive()
        while not asked.gone.is_set():
            await asyncio.sleep(0.001)
        assert (await receive())["type"] == "http.disconnect"

    here = Gate(slow, "mine")
    scope = {"type": "http", "method": "POST", "path": COMPLETIONS,
             "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}  # fmt: skip
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"prompt": "One"}'},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    asyncio.run(asyncio.wait_for(here(scope, receive, lambda message: asyncio.sleep(0)), 5))
    assert gone[0].is_set() and here.requests == {}


def test_more_requests_than_may_wait_are_turned_away():
    statuses: list[int] = []

    async def run() -> None:
        free = asyncio.Event()

        async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await free.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        gate = Gate(slow, "mine", limits=SMALL)
        scope = {"type": "http", "method": "POST", "path": COMPLETIONS,
                 "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")]}  # fmt: skip

        async def one() -> None:
            messages = [{"type": "http.request", "body": b'{"prompt": "One"}'}]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                await asyncio.sleep(60)
                raise AssertionError

            async def send(message: dict[str, Any]) -> None:
                if "status" in message:
                    statuses.append(message["status"])

            await gate(scope, receive, send)

        tasks = [asyncio.create_task(one()) for _ in range(4)]
        while len(statuses) < 2:
            await asyncio.sleep(0.001)
        free.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(run(), 5))
    assert sorted(statuses) == [200, 200, 503, 503]
