"""The answer to one request of completions or chat, whole or in pieces, as the OpenAI API tells it."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from .fields import CHAT
from .gate import Reply
from .stream import Token
from .text import Offsets

if TYPE_CHECKING:
    from .openai_api import Choice, OpenAIApi

BUFFER = 64  # pieces of text between the choices of a request and a client that reads slowly


class Answer:
    """api: whose choices these are, one after another for each prompt."""

    def __init__(
        self,
        api: "OpenAIApi",
        path: str,
        asked: dict[str, Any],
        prompts: list[list[int]],
        choices: "list[Choice]",
    ):
        self.api, self.asked, self.prompts, self.choices = api, asked, prompts, choices
        self.chat = path == CHAT
        prefix, self.kind = ("chatcmpl", "chat.completion") if self.chat else ("cmpl", "text_completion")
        self.head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": api.name}
        # With echo nothing may be asked for, and still the prompt is read.
        self.most = asked["max_tokens"]
        self.offsets = [Offsets(api.tokenizer) for _ in choices]

    def echo(self, place: int) -> tuple[str, list[Token]]:
        """The prompt of a choice as text, and its tokens with their logprobs."""
        if not self.asked.get("echo"):
            return "", []
        ids = self.prompts[place // self.asked["n"]]
        text = self.api.tokenizer.decode(ids, skip_special_tokens=True)
        return text, [Token(ids[0]), *self.choices[place].stream.prompt_logprobs]

    def logprobs(self, place: int, tokens: list[Token]) -> dict[str, Any] | None:
        most = self.asked["logprobs"]
        if most is None:
            return None
        if self.chat:
            return self.api.token_texts.of_chat(tokens, most)
        return self.api.token_texts.of_completion(tokens, most, self.offsets[place])

    async def whole(self, reply: Reply) -> None:
        async def of(place: int, choice: "Choice") -> dict[str, Any]:
            parts, tokens = [], []
            async for shown, some in self.api.pieces(choice, self.most):
                parts.append(shown)
                tokens += some
            before, read = self.echo(place)
            text = before + "".join(parts)
            said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            told = {"logprobs": self.logprobs(place, read + tokens), "finish_reason": choice.reason}
            return {"index": place, **said, **told}

        found = await asyncio.gather(*(of(place, choice) for place, choice in enumerate(self.choices)))
        usage = self.api.usage(self.prompts, self.choices)
        await reply.json(200, {**self.head, "object": self.kind, "choices": found, "usage": usage})

    async def stream(self, reply: Reply) -> None:
        if self.chat:
            for place in range(len(self.choices)):
                await self.piece(reply, place, {"delta": {"role": "assistant", "content": ""}})
        if len(self.choices) == 1:
            async for shown, tokens in self.pieces(0):
                await self.part(reply, 0, shown, tokens)
            await self.last(reply, 0)
        else:
            await self.merged(reply)
        if self.asked["include_usage"]:
            await self.chunk(reply, [], usage=self.api.usage(self.prompts, self.choices))
        await reply.event("[DONE]")
        await reply.end()

    async def merged(self, reply: Reply) -> None:
        """The pieces of several choices, as they come."""
        queue: asyncio.Queue[tuple[int, str, list[Token]] | int] = asyncio.Queue(BUFFER)

        async def of(place: int) -> None:
            async for shown, tokens in self.pieces(place):
                await queue.put((place, shown, tokens))
            await queue.put(place)

        async def send() -> None:
            left = len(self.choices)
            while left:
                match await queue.get():
                    case (place, text, tokens):
                        await self.part(reply, place, text, tokens)
                    case place:
                        left -= 1
                        await self.last(reply, place)

        try:
            async with asyncio.TaskGroup() as tasks:
                for place in range(len(self.choices)):
                    tasks.create_task(of(place))
                tasks.create_task(send())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def pieces(self, place: int) -> AsyncIterator[tuple[str, list[Token]]]:
        """Of one choice, the prompt before the first if it is asked for."""
        first = bool(self.asked.get("echo"))
        async for shown, tokens in self.api.pieces(self.choices[place], self.most):
            if first:
                before, read = self.echo(place)
                shown, tokens, first = before + shown, read + tokens, False
            yield shown, tokens

    async def part(self, reply: Reply, place: int, text: str, tokens: list[Token]) -> None:
        said: dict[str, Any] = {"delta": {"content": text}} if self.chat else {"text": text}
        await self.piece(reply, place, {**said, "logprobs": self.logprobs(place, tokens)})

    async def last(self, reply: Reply, place: int) -> None:
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        reason = self.choices[place].reason
        await self.piece(reply, place, {**said, "logprobs": None, "finish_reason": reason})

    async def piece(self, reply: Reply, place: int, choice: dict[str, Any]) -> None:
        await self.chunk(reply, [{"index": place, "finish_reason": None, **choice}])

    async def chunk(self, reply: Reply, choices: list[dict[str, Any]], **more: Any) -> None:
        kind = "chat.completion.chunk" if self.chat else self.kind
        await reply.event({**self.head, "object": kind, "choices": choices, **more})
