"""The OpenAI API of one engine: completions, chat, responses, the model, its health and its figures."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from .answers import Answer
from .engine import Engine
from .fields import CHAT, COMPLETIONS
from .gate import Limits, Refused, Reply
from .responses import Responses
from .stream import QueueFull, ShuttingDown, Stream, Token
from .text import Text, TokenTexts

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
        choices = await self.start(prompts, asked)
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

    async def start(self, prompts: list[list[int]], asked: dict[str, Any]) -> list[Choice]:
        """As `submit_all`, in a thread: other streams do not wait while a slow store is asked."""
        submitting = asyncio.ensure_future(asyncio.to_thread(self.submit_all, prompts, asked))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:  # the client left, or took too long; what was submitted is given up
            submitting.add_done_callback(give_up)
            raise

    def submit_all(self, prompts: list[list[int]], asked: dict[str, Any]) -> list[Choice]:
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
                        ends=Text(self.tokenizer, asked["stops"]).ends if asked["stops"] else None,
                        whole=not asked.get("stream"),
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
                if shown or choice.text.stopped:
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


def give_up(submitting: "asyncio.Future[list[Choice]]") -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        for choice in submitting.result():
            choice.stream.cancel()


def kind_of(name: str) -> str:
    return "gauge" if name in ("reading", "generating", "queued") else "counter"
