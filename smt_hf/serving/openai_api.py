"""The OpenAI API of one engine: completions, chat, responses, the model, its health and its figures."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from .engine import Engine
from .fields import CHAT, COMPLETIONS
from .gate import Limits, Refused, Reply
from .responses import Responses
from .stream import QueueFull, ShuttingDown, Stream, Token
from .text import Text, TokenTexts

BUFFER = 64  # pieces of text between the choices of a request and a client that reads slowly
NO_CHAT = (
    "this model has no chat template; send the text to be continued to /v1/completions, or set "
    "tokenizer.chat_template and save it with the model."
)


class OpenAIPenalties(LogitsProcessor):
    """score − presence · [token was said] − frequency · (times it was said), of the answer alone."""

    def __init__(self, prompt_tokens: int, presence: float, frequency: float):
        self.prompt_tokens, self.presence, self.frequency = prompt_tokens, presence, frequency

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids[:, self.prompt_tokens :]
        counts = torch.zeros_like(scores).scatter_add_(1, said, torch.ones_like(said, dtype=scores.dtype))
        return scores - self.presence * (counts > 0) - self.frequency * counts


@dataclass
class Choice:
    """One answer: its stream, its text, and the tokens that the text is made of."""

    stream: Stream
    text: Text
    tokens: list[Token] = field(default_factory=list)

    @property
    def reason(self) -> str:
        return "stop" if self.text.stopped or self.stream.finish_reason == "stop" else "length"


class OpenAIApi:
    """name: of the model. Raises what `Gate` makes refusals of."""

    def __init__(self, engine: Engine, tokenizer: Any, name: str, limits: Limits):
        self.engine, self.tokenizer, self.name, self.limits = engine, tokenizer, name, limits
        self.token_texts = TokenTexts(tokenizer)
        self.responses = Responses(self)
        self.began = int(time.time())

    # ------------------------------------------------------------ what the gate calls

    async def get(self, path: str, reply: Reply) -> None:
        about = {"id": self.name, "object": "model", "created": self.began, "owned_by": "smt-hf"}
        if path == "/health":
            await reply.json(200, {"status": "ok"})
        elif path == "/metrics":
            stats = self.engine.stats()
            lines = [f"# TYPE smt_{name} {kind_of(name)}\nsmt_{name} {value}" for name, value in stats.items()]
            await reply.text(200, "\n".join(lines) + "\n", "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/v1/models":
            await reply.json(200, {"object": "list", "data": [about]})
        else:
            await reply.json(200, about)

    async def post(self, path: str, asked: dict[str, Any], reply: Reply) -> None:
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._post(path, asked, reply)
        except TimeoutError:
            late = f"the answer took more than {self.limits.seconds:g} seconds; ask for fewer tokens."
            raise Refused(503, late) from None
        except QueueFull as error:
            raise Refused(429, str(error), retry_after="1") from None
        except ShuttingDown as error:
            raise Refused(503, str(error), retry_after="5") from None
        except ValueError as error:
            raise Refused(400, str(error)) from None
        except RuntimeError as error:  # a row that failed
            raise Refused(500, str(error)) from None

    async def _post(self, path: str, asked: dict[str, Any], reply: Reply) -> None:
        if path == COMPLETIONS:
            prompts = [self.ids_of(one) for one in asked["prompt"]]
        elif path == CHAT:
            prompts = [self.ids_of_chat(asked["messages"])]
        else:
            await self.responses.answer(asked, reply)
            return
        choices = self.start(prompts, asked)
        try:
            answer = Answer(self, path, asked, prompts, choices)
            await (answer.stream(reply) if asked.get("stream") else answer.whole(reply))
        finally:
            for choice in choices:
                choice.stream.cancel()

    # ------------------------------------------------------------ prompts and choices

    def ids_of(self, prompt: str | list[int]) -> list[int]:
        return self.checked_ids(prompt if isinstance(prompt, list) else self.tokenizer(prompt)["input_ids"])

    def ids_of_chat(self, messages: list[dict[str, str]]) -> list[int]:
        if self.tokenizer.chat_template is None:
            raise ValueError(NO_CHAT)
        try:
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # whatever the template raises
            raise ValueError(f"the chat template refuses the messages: {error}") from None
        return self.checked_ids(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def checked_ids(self, ids: list[int]) -> list[int]:
        if not ids:
            raise ValueError("the prompt is empty; give at least one character to continue.")
        if len(ids) > self.limits.prompt:
            raise ValueError(f"the prompt has {len(ids):,} tokens; this server reads {self.limits.prompt:,}.")
        return ids

    def start(self, prompts: list[list[int]], asked: dict[str, Any]) -> list[Choice]:
        """A choice for each of the n answers to each prompt; none where one of them is refused."""
        choices: list[Choice] = []
        penalties = (asked.get("presence_penalty", 0), asked.get("frequency_penalty", 0))
        bias = {int(token): float(number) for token, number in asked.get("logit_bias", {}).items()}
        if wrong := [token for token in bias if token >= self.engine.model.config.vocab_size]:
            raise ValueError(f"logit_bias has token id {wrong[0]}, which this model does not have.")
        config = GenerationConfig(
            max_new_tokens=max(1, asked["max_tokens"]),
            do_sample=asked["temperature"] > 0,
            temperature=asked["temperature"] or None,
            top_p=asked.get("top_p") if asked["temperature"] else None,
            top_k=0 if asked["temperature"] else None,
            sequence_bias=[[[token], number] for token, number in bias.items()] or None,
        )
        try:
            for prompt in prompts:
                for _ in range(asked["n"]):
                    seed = asked.get("seed")
                    stream = self.engine.submit(
                        prompt,
                        config,
                        seed=None if seed is None else seed + len(choices),
                        logprobs=asked["logprobs"],
                        prompt_logprobs=bool(asked.get("echo")) and asked["logprobs"] is not None,
                        logits_processor=[OpenAIPenalties(len(prompt), *penalties)] if any(penalties) else (),
                    )
                    choices.append(Choice(stream, Text(self.tokenizer, asked["stops"])))
        except BaseException:
            for choice in choices:
                choice.stream.cancel()
            raise
        return choices

    async def pieces(self, choice: Choice, most: int) -> AsyncIterator[tuple[str, list[Token]]]:
        """(text that may be shown, the tokens that it came with), until the answer ends."""
        waiting: list[Token] = []
        async with aclosing(aiter(choice.stream)) as tokens:  # type: ignore[type-var]
            async for token in tokens:
                if len(choice.tokens) == most:
                    break
                choice.tokens.append(token)
                waiting.append(token)
                shown = choice.text.add(token.id)
                if choice.text.stopped:
                    choice.stream.cancel()
                    yield shown, waiting
                    return
                if shown:
                    yield shown, waiting
                    waiting = []
        if (shown := choice.text.end()) or waiting:
            yield shown, waiting

    def usage(self, prompts: list[list[int]], choices: list[Choice]) -> dict[str, Any]:
        read, said = sum(map(len, prompts)), sum(len(choice.tokens) for choice in choices)
        each = len(choices) // len(prompts)
        cached = sum(choice.stream.cached_tokens for choice in choices[::each])
        return {
            "prompt_tokens": read,
            "completion_tokens": said,
            "total_tokens": read + said,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def kind_of(name: str) -> str:
    return "gauge" if name in ("reading", "generating", "queued") else "counter"


class Answer:
    """The answer to one request of completions or chat, whole or in pieces."""

    def __init__(
        self, api: OpenAIApi, path: str, asked: dict[str, Any], prompts: list[list[int]], choices: list[Choice]
    ):
        self.api, self.asked, self.prompts, self.choices = api, asked, prompts, choices
        self.chat = path == CHAT
        prefix, self.kind = ("chatcmpl", "chat.completion") if self.chat else ("cmpl", "text_completion")
        self.head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": api.name}
        # With echo nothing may be asked for, and still the prompt is read.
        self.most = asked["max_tokens"]
        self.offsets = [0] * len(choices)

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
        told = self.api.token_texts.of_completion(tokens, most, self.offsets[place])
        self.offsets[place] += sum(map(len, told["tokens"]))
        return told

    async def whole(self, reply: Reply) -> None:
        async def of(place: int, choice: Choice) -> dict[str, Any]:
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
