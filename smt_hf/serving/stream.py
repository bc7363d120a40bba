"""What a request hears of its tokens: a stream that a coroutine or a thread iterates over."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

MOST_UNREAD = 4096  # tokens


class QueueFull(Exception):
    """There are as many requests waiting as may wait."""


class ShuttingDown(Exception):
    """The engine takes no more requests."""


class Unread(Exception):
    """A reader does not keep up."""


class Token(NamedTuple):
    """id; logprob: of this token, in nats; top: the most probable tokens and their logprobs, if asked for."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Stream:
    """Tokens as they are made, for one reader.

    prompt_tokens: of the prompt. cached_tokens: of these, how many a stored state had read. finish_reason: None
    as long as tokens come; then "stop" (an end token, the last of the stream), "length", "cancelled" or
    "error", which the reader gets as RuntimeError. prompt_logprobs: `Token`s of the prompt from its second one,
    if they were asked for. whole: the reader wants the tokens when all are there, so any number of them waits
    for it. Otherwise a text ends with an error where more than `MOST_UNREAD` tokens wait.
    """

    def __init__(self, prompt_tokens: int, wants_prompt: bool, whole: bool = False):
        self.prompt_tokens, self.wants_prompt, self.whole = prompt_tokens, wants_prompt, whole
        self.cached_tokens = 0
        self.found: Any = None  # (tokens, memory) of a stored state
        self.prompt_logprobs: list[Token] = []
        self.finish_reason: str | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.tokens: deque[Token] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.arrived: threading.Event | None = None
        self.ended: threading.Event | None = None

    def cancel(self) -> None:
        """Give the row up, at the next step; tokens that were made can still be read."""
        self.cancelled = True

    # ------------------------------------------------------------ the engine's side, which adds to `tokens`

    def unread(self) -> Unread | None:
        """What to end with if too much waits for the reader."""
        if self.whole or len(self.tokens) <= MOST_UNREAD:
            return None
        return Unread(f"more than {MOST_UNREAD:,} tokens waited unread; read faster, or ask for fewer.")

    def finish(self, reason: str, error: Exception | None = None) -> None:
        self.error, self.finish_reason = error, reason

    # ------------------------------------------------------------ the reader's side

    def _next(self) -> Token | None:
        """A token that is there; None where there will be none; raises LookupError if one has to wait."""
        ended = self.finish_reason  # before looking for tokens: the last one comes before the end
        if self.tokens:
            return self.tokens.popleft()
        if ended is None:
            raise LookupError
        if self.error is not None:
            raise RuntimeError(f"generating failed: {self.error}") from self.error
        return None

    def __iter__(self) -> Iterator[Token]:
        self.arrived = threading.Event()
        while True:
            self.arrived.clear()
            try:
                token = self._next()
            except LookupError:
                self.arrived.wait()
                continue
            if token is None:
                return
            yield token

    def collect(self) -> list[Token]:
        """All tokens, once the last one is there: the reader sleeps meanwhile."""
        self.whole = True
        ended = self.ended = threading.Event()
        if self.finish_reason is None:
            ended.wait()
        return list(self)

    async def __aiter__(self) -> AsyncIterator[Token]:
        loop = asyncio.get_running_loop()
        while True:
            self.waiter = loop.create_future()
            try:
                token = self._next()
            except LookupError:
                await self.waiter
                continue
            if token is None:
                return
            yield token


def wake(streams: Iterable[Stream]) -> None:
    """Tell readers that something arrived: one call for each event loop, however many streams."""
    waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for stream in dict.fromkeys(streams):
        if stream.arrived is not None:
            stream.arrived.set()
        if stream.ended is not None and stream.finish_reason is not None:
            stream.ended.set()
        waiter = stream.waiter
        if waiter is not None:
            stream.waiter = None
            waiters.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, several in waiters.items():
        try:
            loop.call_soon_threadsafe(resolve, several)
        except RuntimeError:  # the loop is closed: nobody reads any more
            for waiter in several:
                waiter.cancel()


def resolve(waiters: list["asyncio.Future[None]"]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
