"""A client of an ASGI application in the same process."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        return str(self.json.get("error", {}).get("message", "")) if self.body.startswith("{") else ""

    @property
    def events(self) -> list[Any]:
        """The data of server-sent events; [DONE] as it stands."""
        found = [line.removeprefix("data: ") for line in self.body.splitlines() if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in found]


async def asked_of(
    app: Any,
    method: str,
    path: str,
    raw: list[bytes],
    headers: dict[str, str],
    leaves_after: float | None = None,
    stops_reading: Callable[[], bool] = lambda: False,
) -> Answered:
    """leaves_after: seconds until the client goes away; None: it stays. stops_reading: whether the client takes
    no more now, so that `send` waits, as a server's does for a full socket."""
    values = {"host": "localhost:8000", "content-type": "application/json", **headers}
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    waiting = [
        {"type": "http.request", "body": part, "more_body": i < len(raw) - 1} for i, part in enumerate(raw)
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60 if leaves_after is None else leaves_after)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        while stops_reading():
            await asyncio.sleep(0.001)
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return Answered(0, {}, "")
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answered(sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:]).decode())


def ask(
    app: Any,
    body: Any = None,
    path: str = "/v1/completions",
    method: str = "POST",
    raw: list[bytes] | None = None,
    **headers: str,
) -> Answered:
    parts = raw if raw is not None else [json.dumps(body).encode()] if body is not None else [b""]
    return asyncio.run(asked_of(app, method, path, parts, headers))
