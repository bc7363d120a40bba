"""Responses of the OpenAI API: a conversation that the server remembers by the id of its last answer."""

import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from .gate import Refused, Reply

if TYPE_CHECKING:
    from .openai_api import Choice, OpenAIApi

MOST_KEPT = 10_000
Messages = list[dict[str, str]]


class Responses:
    """The messages up to each answer, by its id; those that were made first are forgotten first."""

    def __init__(self, api: "OpenAIApi"):
        self.api = api
        self.kept: OrderedDict[str, Messages] = OrderedDict()

    def messages(self, asked: dict[str, Any]) -> Messages:
        """Instructions, which are of this request alone; what was said before; and what is new."""
        before: Messages = []
        if (previous := asked.get("previous_response_id")) is not None:
            if previous not in self.kept:
                raise Refused(
                    404, f"previous_response_id {previous!r} is not known here; send the conversation."
                )
            before = self.kept[previous]
        head = [{"role": "system", "content": asked["instructions"]}] if asked.get("instructions") else []
        return [*head, *before, *asked["input"]]

    async def answer(self, asked: dict[str, Any], reply: Reply) -> None:
        prompts = [self.api.ids_of_chat(self.messages(asked))]
        (choice,) = choices = await self.api.start(prompts, asked)
        response = Response(self.api, asked)
        try:
            parts = []
            if asked.get("stream"):
                await response.begin(reply)
            async for shown, _ in self.api.pieces(choice, asked["max_tokens"]):
                parts.append(shown)
                if asked.get("stream"):
                    await response.delta(reply, shown)
            text = "".join(parts)
            if asked.get("store", True):
                self.keep(response.id, asked, text)
            usage = self.api.usage(prompts, choices)
            if asked.get("stream"):
                await response.end(reply, text, choice, usage)
            else:
                await reply.json(200, response.whole(text, choice, usage))
        finally:
            choice.stream.cancel()

    def keep(self, name: str, asked: dict[str, Any], text: str) -> None:
        before = self.kept.get(asked.get("previous_response_id", ""), [])
        self.kept[name] = [*before, *asked["input"], {"role": "assistant", "content": text}]
        while len(self.kept) > MOST_KEPT:
            self.kept.popitem(last=False)


class Response:
    """One answer as the API tells it: whole, or as events in their order."""

    def __init__(self, api: "OpenAIApi", asked: dict[str, Any]):
        self.asked, self.name = asked, api.name
        self.id, self.message_id = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(16)}"
        self.created, self.number = int(time.time()), 0
        self.place = {"item_id": self.message_id, "output_index": 0, "content_index": 0}

    def about(self, status: str, **more: Any) -> dict[str, Any]:
        asked = self.asked
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status,
            "model": self.name, "output": [], "error": None, "incomplete_details": None,
            "instructions": asked.get("instructions"), "metadata": asked.get("metadata", {}),
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "temperature": asked["temperature"], "top_p": asked.get("top_p", 1),
            "max_output_tokens": asked["max_tokens"], "previous_response_id": asked.get("previous_response_id"),
            "store": asked.get("store", True), "usage": None, **more,
        }  # fmt: skip

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def message(self, status: str, content: list[Any]) -> dict[str, Any]:
        return {
            "type": "message", "id": self.message_id, "role": "assistant", "status": status, "content": content,
        }  # fmt: skip

    def whole(self, text: str, choice: "Choice", usage: dict[str, Any]) -> dict[str, Any]:
        cut = choice.reason == "length"
        status = "incomplete" if cut else "completed"
        told = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        details = {"reason": "max_output_tokens"} if cut else None
        output = [self.message(status, [self.part(text)])]
        return self.about(status, output=output, usage=told, incomplete_details=details)

    async def event(self, reply: Reply, kind: str, **content: Any) -> None:
        await reply.event({"type": kind, "sequence_number": self.number, **content}, kind)
        self.number += 1

    async def begin(self, reply: Reply) -> None:
        await self.event(reply, "response.created", response=self.about("in_progress"))
        await self.event(reply, "response.in_progress", response=self.about("in_progress"))
        item = self.message("in_progress", [])
        await self.event(reply, "response.output_item.added", output_index=0, item=item)
        await self.event(reply, "response.content_part.added", **self.place, part=self.part(""))

    async def delta(self, reply: Reply, text: str) -> None:
        await self.event(reply, "response.output_text.delta", **self.place, delta=text, logprobs=[])

    async def end(self, reply: Reply, text: str, choice: "Choice", usage: dict[str, Any]) -> None:
        whole = self.whole(text, choice, usage)
        await self.event(reply, "response.output_text.done", **self.place, text=text, logprobs=[])
        await self.event(reply, "response.content_part.done", **self.place, part=self.part(text))
        await self.event(reply, "response.output_item.done", output_index=0, item=whole["output"][0])
        await self.event(reply, f"response.{whole['status']}", response=whole)
        await reply.end()
