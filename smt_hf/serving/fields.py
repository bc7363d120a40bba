"""The fields of a request: each is honoured by the server behind, or refused in one sentence.

A field may be there with the value that changes nothing, as clients send it: `n=1`, `echo=false`.
"""

import math
from typing import Any

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
# What is honoured. `user` names the client's own user and asks for nothing.
SHARED = {
    *("model", "max_tokens", "temperature", "top_p", "frequency_penalty", "stop", "seed", "stream"),
    *("stream_options", "user"),
}
HONOURED = {
    COMPLETIONS: SHARED | {"prompt"},
    CHAT: SHARED | {"messages", "max_completion_tokens", "logit_bias"},
}
# Values that ask for nothing, of fields that are not honoured.
NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "logprobs": (False,), "top_logprobs": (0,), "suffix": ("",),
    "presence_penalty": (0, 0.0), "logit_bias": ({},), "tools": ([],), "tool_choice": ("none", "auto"),
    "functions": ([],), "store": (False,), "metadata": ({},), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "chat_template_kwargs": ({},), "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
}  # fmt: skip
STOPS = 4  # as many as OpenAI takes
DEFAULT_TOKENS = 1024
LEAST_TEMPERATURE = 0.01  # below it probabilities overflow; 0 is greedy
ROLES = ("system", "developer", "user", "assistant")


def checked(path: str, body: dict[str, Any], model: str, max_tokens: int) -> dict[str, Any]:
    """The request as the server behind takes it. Raises ValueError for what it would ignore, or cannot do."""
    honoured = HONOURED[path]
    asked = {}
    for name, value in body.items():
        if name in honoured:
            if value is not None:
                asked[name] = value
        elif value is not None and not asks_for_nothing(name, value):
            raise ValueError(f"{name} is {said(value)}; this server does not have it, so leave it out.")
    if asked.setdefault("model", model) != model:
        raise ValueError(f"model is {said(asked['model'])}; this server has {model} alone.")
    number(asked, "temperature", 0, 2)
    if 0 < asked.get("temperature", 1) < LEAST_TEMPERATURE:
        raise ValueError(f"temperature is {asked['temperature']}; give 0, or at least {LEAST_TEMPERATURE}.")
    number(asked, "top_p", 0, 1)
    if asked.get("top_p") == 0:
        raise ValueError("top_p is 0; it must be above 0, and temperature 0 is greedy.")
    number(asked, "frequency_penalty", 0, 2)
    number(asked, "seed", 0, 2**63 - 1, int)
    limits = [name for name in ("max_completion_tokens", "max_tokens") if name in asked]
    for name in limits:
        number(asked, name, 1, max_tokens, int)
    if not limits:
        asked["max_tokens"] = min(DEFAULT_TOKENS, max_tokens)
    if not isinstance(asked.get("stream", False), bool):
        raise ValueError(f"stream is {said(asked['stream'])}; it must be true or false.")
    # Usage is always told.
    asked.pop("stream_options", None)
    asked.pop("user", None)
    stop = asked.pop("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(stops, list)
        or not all(isinstance(one, str) and one for one in stops)
        or len(stops) > STOPS
    ):
        raise ValueError(f"stop is {said(stop)}; it must be at most {STOPS} texts that are not empty.")
    if stops:
        asked["stop"] = stops
    bias = asked.get("logit_bias", {})
    if not isinstance(bias, dict) or not all(str(k).isdecimal() and is_number(v) for k, v in bias.items()):
        raise ValueError(f"logit_bias is {said(bias)}; it must be a number for each token id.")
    if path == CHAT:
        asked["messages"] = [message(one) for one in messages(asked)]
    elif not isinstance(asked.get("prompt"), str):
        raise ValueError(f"prompt is {said(asked.get('prompt'))}; it must be one text.")
    return asked


def asks_for_nothing(name: str, value: Any) -> bool:
    return any(value == one and type(value) is type(one) for one in NOTHING.get(name, ()))


def number(asked: dict[str, Any], name: str, least: float, most: float, kind: type | None = None) -> None:
    """Raise ValueError for a field that is no number between two limits, unless it is not there."""
    value = asked.get(name, least)
    if not is_number(value) or not least <= value <= most or (kind is int and not isinstance(value, int)):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {said(value)}; it must be {what} between {least} and {most}.")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def messages(asked: dict[str, Any]) -> list[Any]:
    found = asked.get("messages")
    if not isinstance(found, list) or not found:
        raise ValueError(f"messages is {said(found)}; it must be a list with one message at least.")
    return found


def message(one: Any) -> dict[str, str]:
    """A message as role and text. Raises ValueError for one that holds anything else."""
    if not isinstance(one, dict) or one.get("role") not in ROLES:
        raise ValueError(f"a message is {said(one)}; it must have a role of {', '.join(ROLES)}.")
    content = one.get("content")
    if isinstance(content, list) and all(is_text(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"the content of a message is {said(content)}; it must be text.")
    if rest := [name for name, value in one.items() if name not in ("role", "content", "name") and value]:
        raise ValueError(f"a message has {rest[0]}; this model reads roles and texts alone.")
    return {**({"name": str(one["name"])} if one.get("name") else {}), "role": one["role"], "content": content}


def is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
