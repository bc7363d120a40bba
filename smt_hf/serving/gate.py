"""The gate before the API: an ASGI application that lets through what the API can answer.

It refuses in one sentence: strangers without the key, other paths, pages of other sites, other names of this
machine, large and slow bodies, and fields that would be ignored (fields.py). It needs nothing beyond Python.
"""

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from .fields import CHAT, COMPLETIONS, RESPONSES, checked

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GETS = ("/health", "/metrics", "/v1/models")
POSTS = (COMPLETIONS, CHAT, RESPONSES)
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass
class Limits:
    """tokens: of an answer. prompt: tokens of a prompt. seconds: of generating one answer. body: bytes.
    body_seconds: for sending a body, and for reading a refusal. waiting: connections at once.
    """

    tokens: int = 4096
    prompt: int = 131_072
    seconds: float = 300.0
    body: int = 2**20
    body_seconds: float = 30.0
    waiting: int = 1024


class Refused(Exception):
    def __init__(self, status: int, sentence: str, **headers: str):
        super().__init__(sentence)
        self.status, self.headers = status, headers


class Reply:
    """What goes back to a client: one body, or events as they come."""

    def __init__(self, send: Send, headers: dict[str, str]):
        self.send, self.headers, self.started = send, headers, False

    async def start(self, status: int, kind: str, **headers: str) -> None:
        self.started = True
        values = {"content-type": kind, **self.headers, **headers}
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def text(
        self, status: int, text: str, kind: str = "text/plain; charset=utf-8", **headers: str
    ) -> None:
        body = text.encode()
        await self.start(status, kind, content_length=str(len(body)), **headers)
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, status: int, content: Any, **headers: str) -> None:
        await self.text(status, json.dumps(content), "application/json", **headers)

    async def event(self, content: Any, name: str | None = None) -> None:
        """A server-sent event; the first one opens the stream."""
        if not self.started:
            await self.start(200, "text/event-stream", cache_control="no-cache")
        data = content if isinstance(content, str) else json.dumps(content)
        line = f"data: {data}\n\n" if name is None else f"event: {name}\ndata: {data}\n\n"
        await self.send({"type": "http.response.body", "body": line.encode(), "more_body": True})

    async def end(self) -> None:
        await self.send({"type": "http.response.body", "body": b""})

    async def error(self, error: Refused) -> None:
        """As a body, or as the last event of a stream that has begun."""
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        content = {"error": {"message": str(error), "type": kind, "param": None, "code": error.status}}
        if self.started:
            await self.event(content)
            await self.end()
        else:
            await self.json(error.status, content, **error.headers)


class Api(Protocol):
    async def get(self, path: str, reply: Reply) -> None: ...

    async def post(self, path: str, asked: dict[str, Any], reply: Reply) -> None: ...


class Gate:
    """api: what answers. model: the only one that it has. hosts: names under which it may be asked.

    key: what clients must send as `Authorization: Bearer KEY`, if it is given; /health is answered without.
    origins: pages that may use the server besides its own; "*" is all of them.
    Raises ValueError for an empty key, which would lock nobody out.
    """

    def __init__(
        self,
        api: Api,
        model: str,
        hosts: Collection[str] = LOCAL,
        limits: Limits | None = None,
        key: str | None = None,
        origins: Collection[str] = (),
    ):
        if key == "":
            raise ValueError("key is empty; give what clients must send, or None.")
        self.api, self.model, self.hosts = api, model, {name.lower() for name in hosts}
        self.limits, self.key, self.origins = limits or Limits(), key, set(origins)
        self.waiting = 0
        self.closing = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            return  # a web socket: closed without an answer
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        reply = Reply(send, self.cors_headers(headers))
        self.waiting += 1
        try:
            await self.pass_on(scope["method"], scope["path"], headers, receive, reply)
        except Refused as error:
            with suppress(TimeoutError):  # a client that reads nothing is told nothing, and makes room
                await asyncio.wait_for(reply.error(error), self.limits.body_seconds)
        except asyncio.CancelledError:
            pass  # the server ends and waits no longer; it would log this as a failure, with a traceback
        finally:
            self.waiting -= 1

    async def pass_on(
        self, method: str, path: str, headers: dict[str, str], receive: Receive, reply: Reply
    ) -> None:
        self.check_origin(headers)
        if method == "OPTIONS" and reply.headers:
            await reply.text(204, "")
            return
        if self.key is not None and path != "/health":
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.key.encode()):
                raise Refused(401, "the key is missing or wrong; send Authorization: Bearer KEY.")
        if method == "GET" and (path in GETS or path == f"/v1/models/{self.model}"):
            await self.api.get(path, reply)
            return
        if method != "POST" or path not in POSTS:
            known = ", ".join([*(f"GET {one}" for one in GETS), *(f"POST {one}" for one in POSTS)])
            raise Refused(404, f"{method} {path} is not answered here; ask for one of {known}.")
        if self.closing:
            raise Refused(503, "the server is shutting down; ask again later.", retry_after="5")
        if self.waiting > self.limits.waiting:
            raise Refused(
                503, f"{self.limits.waiting} requests are under way; ask again later.", retry_after="1"
            )
        if not headers.get("content-type", "").lower().startswith("application/json"):
            raise Refused(415, "the body must be JSON; send it with Content-Type: application/json.")
        body = await self.read(receive)
        try:
            asked = checked(path, body, self.model, self.limits.tokens)
        except (ValueError, OverflowError, RecursionError) as error:
            raise Refused(400, str(error)) from None
        await self.while_there(self.api.post(path, asked, reply), receive)

    async def while_there(self, work: Any, receive: Receive) -> None:
        """Do the work as long as the client is there."""

        async def leaves() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        answering, leaving = asyncio.ensure_future(work), asyncio.ensure_future(leaves())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    def cors_headers(self, headers: dict[str, str]) -> dict[str, str]:
        """What tells a browser that a page of another site may use this server."""
        origin = headers.get("origin", "")
        if not origin or not self.origins & {origin, "*"}:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-headers": "authorization, content-type",
            "access-control-allow-methods": "GET, POST, OPTIONS",
            "vary": "Origin",
        }

    def check_origin(self, headers: dict[str, str]) -> None:
        """Refuse names that are not of this server, as of a page that bent its own here, and other pages."""
        if not self.is_here(host := headers.get("host", "")):
            raise Refused(403, f"this server is not {host or 'asked by a name'}; use one of its own names.")
        origin = headers.get("origin")
        if origin and not self.origins & {origin, "*"} and not self.is_here(origin.split("://", 1)[-1]):
            raise Refused(403, f"pages of {origin} may not use this server.")

    def is_here(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].split("]", 1)[0] if name.startswith("[") else name.rsplit(":", 1)[0]
        if name in self.hosts:
            return True
        return bool(self.hosts & {"0.0.0.0", "::"}) and is_address(name)  # no page has an address for its name

    async def read(self, receive: Receive) -> dict[str, Any]:
        try:
            data = await asyncio.wait_for(self.whole_body(receive), self.limits.body_seconds)
        except TimeoutError:
            late = f"the body took more than {self.limits.body_seconds:g} seconds."
            raise Refused(408, late, connection="close") from None
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
                large = f"the body is larger than {self.limits.body:,} bytes."
                raise Refused(413, large, connection="close")  # the rest of it is not read
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
