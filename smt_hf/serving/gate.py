"""The gate before the server: an ASGI application that lets through what the server behind can answer.

It refuses in one sentence: other paths, pages of other sites, other names of this machine, large and slow
bodies, and fields that would be ignored (fields.py). It needs nothing beyond Python.
"""

import asyncio
import ipaddress
import itertools
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from .fields import CHAT, COMPLETIONS, checked

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

PATHS = {("GET", "/health"), ("GET", "/v1/models"), ("POST", COMPLETIONS), ("POST", CHAT)}
LOCAL = ("localhost", "127.0.0.1", "::1")
# The field by which the server behind hands the request of this gate on to the model.
REQUEST = "smt_request"


@dataclass
class Limits:
    """tokens: of an answer. prompt: tokens of a prompt. seconds: of generating one answer. body: bytes.
    body_seconds: for sending a body. waiting: requests at once.
    """

    tokens: int = 4096
    prompt: int = 131_072
    seconds: float = 300.0
    body: int = 2**20
    body_seconds: float = 30.0
    waiting: int = 64


@dataclass
class Asked:
    """A request on its way: the seed of its sampling, and whether its client is gone."""

    seed: int
    gone: threading.Event = field(default_factory=threading.Event)


class Refused(Exception):
    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Gate:
    """app: the server behind. model: the only one that it has. hosts: names under which it may be asked.

    count_tokens: of a prompt. requests: those under way, by the value of their field `REQUEST`.
    """

    def __init__(
        self,
        app: Application,
        model: str,
        hosts: Collection[str] = LOCAL,
        limits: Limits | None = None,
        count_tokens: Callable[[str], int] = len,
    ):
        self.app, self.model, self.hosts = app, model, {name.lower() for name in hosts}
        self.limits, self.count_tokens = limits or Limits(), count_tokens
        self.requests: dict[str, Asked] = {}
        self.numbers = itertools.count()
        self.waiting = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: closed without an answer
        self.waiting += 1
        try:
            await self.pass_on(scope, receive, send)
        except Refused as error:
            await answer(send, error.status, str(error))
        finally:
            self.waiting -= 1

    async def pass_on(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.check_origin(headers)
        method, path = scope["method"], scope["path"]
        if (method, path) not in PATHS:
            known = ", ".join(f"{one} {other}" for one, other in sorted(PATHS))
            raise Refused(404, f"{method} {path} is not answered here; ask for one of {known}.")
        if method == "GET":
            await self.app(scope, receive, send)
            return
        if self.waiting > self.limits.waiting:
            raise Refused(503, f"{self.limits.waiting} requests are waiting; try again later.")
        if not headers.get("content-type", "").lower().startswith("application/json"):
            raise Refused(415, "the body must be JSON; send it with Content-Type: application/json.")
        body = await self.read(receive, headers)
        try:
            asked = checked(path, body, self.model, self.limits.tokens)
            if path == COMPLETIONS and (count := self.count_tokens(asked["prompt"])) > self.limits.prompt:
                raise ValueError(f"the prompt has {count:,} tokens; this server reads {self.limits.prompt:,}.")
        except (ValueError, OverflowError, RecursionError) as error:
            raise Refused(400, str(error)) from None
        request = Asked(asked.pop("seed", secrets.randbits(63)))
        name = asked[REQUEST] = str(next(self.numbers))
        data = json.dumps(asked).encode()
        kept = [(key, value) for key, value in scope["headers"] if key.lower() != b"content-length"]
        scope = {**scope, "headers": [*kept, (b"content-length", str(len(data)).encode())]}
        self.requests[name] = request
        try:
            await self.watched(scope, receive, send, data, request)
        finally:
            request.gone.set()
            del self.requests[name]

    async def watched(self, scope: Message, receive: Receive, send: Send, data: bytes, request: Asked) -> None:
        """Pass the request on, and note when its client leaves, also while the server behind does not look."""
        left = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            request.gone.set()
            left.set()

        first: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]

        async def replay() -> Message:
            if first:
                return first.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        watcher = asyncio.create_task(watch())
        try:
            await self.app(scope, replay, send)
        finally:
            watcher.cancel()

    def check_origin(self, headers: dict[str, str]) -> None:
        """Refuse names that are not of this server, as of a page that bent its own here, and other pages."""
        if not self.is_here(host := headers.get("host", "")):
            raise Refused(403, f"this server is not {host or 'asked by a name'}; use one of its own names.")
        origin = headers.get("origin")
        if origin and not self.is_here(origin.split("://", 1)[-1]):
            raise Refused(403, f"pages of {origin} may not use this server.")

    def is_here(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].split("]", 1)[0] if name.startswith("[") else name.rsplit(":", 1)[0]
        if name in self.hosts:
            return True
        return bool(self.hosts & {"0.0.0.0", "::"}) and is_address(name)  # no page has an address for its name

    async def read(self, receive: Receive, headers: dict[str, str]) -> dict[str, Any]:
        try:
            data = await asyncio.wait_for(self.whole_body(receive), self.limits.body_seconds)
        except TimeoutError:
            raise Refused(408, f"the body took more than {self.limits.body_seconds:g} seconds.") from None
        try:
            body = json.loads(data, parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"the body is no JSON ({error}).") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body must be a JSON object.")
        return body

    async def whole_body(self, receive: Receive) -> bytes:
        data = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the client left.")
            data += message.get("body", b"")
            if len(data) > self.limits.body:
                raise Refused(413, f"the body is larger than {self.limits.body:,} bytes.")
            if not message.get("more_body"):
                return bytes(data)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


async def answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": {"message": sentence, "type": "invalid_request_error"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
