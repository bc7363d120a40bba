"""The fields of a request: each is honoured, or refused in one sentence.

A field that is not honoured may be there with the value that changes nothing, as clients send it.
"""

import json
import math
from typing import Any

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
# What is honoured. `user` names the client's own user and asks for nothing.
SHARED = {
    *("model", "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "stop", "seed"),
    *("stream", "stream_options", "n", "logprobs", "max_tokens", "user"),
}
HONOURED = {
    COMPLETIONS: SHARED | {"prompt", "echo", "best_of"},
    CHAT: SHARED | {"messages", "max_completion_tokens", "top_logprobs"},
    RESPONSES: {
        *(
            "model",
            "input",
            "instructions",
            "previous_response_id",
            "max_output_tokens",
            "temperature",
            "top_p",
        ),
        *("stream", "store", "user", "metadata"),
    },
}
# Values that ask for nothing, of fields that are not honoured.
NOTHING: dict[str, tuple[Any, ...]] = {
    "echo": (False,), "suffix": ("",), "top_logprobs": (0,), "tools": ([],), "tool_choice": ("none", "auto"),
    "functions": ([],), "store": (False,), "metadata": ({},), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "chat_template_kwargs": ({},), "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"), "truncation": ("disabled",), "text": ({"format": {"type": "text"}},),
    "background": (False,), "include": ([],), "reasoning": ({},),
}  # fmt: skip
STOPS = 4  # as many as OpenAI takes
MOST_CHOICES = 64
DEFAULT_TOKENS = 1024
LEAST_TEMPERATURE = 0.01  # below it probabilities overflow; 0 is greedy
ROLES = ("system", "developer", "user", "assistant")


def checked(path: str, body: dict[str, Any], model: str, max_tokens: int) -> dict[str, Any]:
    """The request with every value in its place. Raises ValueError for what cannot be honoured.

    Besides its own fields it has max_tokens, stops, n, logprobs (None or how many of the most probable), and
    temperature, 1 unless it says otherwise.
    """
    refuse_half_characters(body)
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
    check_sampling(asked)
    limits = {
        name: asked[name]
        for name in ("max_output_tokens", "max_completion_tokens", "max_tokens")
        if name in asked
    }
    for name in limits:
        number(asked, name, 0 if asked.get("echo") is True else 1, max_tokens, int)
    if len(set(limits.values())) > 1:
        both = " and ".join(f"{name} is {value}" for name, value in limits.items())
        raise ValueError(f"{both}; give one of them.")
    asked["max_tokens"] = next(iter(limits.values()), min(DEFAULT_TOKENS, max_tokens))
    for name in ("stream", "echo", "store"):
        if not isinstance(asked.get(name, False), bool):
            raise ValueError(f"{name} is {said(asked[name])}; it must be true or false.")
    asked["include_usage"] = usage_asked(asked.pop("stream_options", {}))
    asked["stops"] = stops(asked.pop("stop", []))
    number(asked, "n", 1, MOST_CHOICES, int)
    if asked.setdefault("n", 1) != asked.get("best_of", asked["n"]):
        raise ValueError(f"best_of is {said(asked['best_of'])}; it must be n, {asked['n']}, or left out.")
    asked["logprobs"] = logprobs(path, asked)
    if path == COMPLETIONS:
        asked["prompt"] = prompts(asked.get("prompt"))
    elif path == CHAT:
        asked["messages"] = messages(asked.get("messages"), "messages")
    else:
        given = asked.get("input")
        given = [{"role": "user", "content": given}] if isinstance(given, str) else given
        asked["input"] = messages(given, "input")
        for name in ("instructions", "previous_response_id"):
            if not isinstance(asked.get(name, ""), str):
                raise ValueError(f"{name} is {said(asked[name])}; it must be text.")
        if not isinstance(asked.get("metadata", {}), dict):
            raise ValueError(f"metadata is {said(asked['metadata'])}; it must be an object.")
    return asked


def check_sampling(asked: dict[str, Any]) -> None:
    number(asked, "temperature", 0, 2)
    if 0 < asked.setdefault("temperature", 1) < LEAST_TEMPERATURE:
        raise ValueError(f"temperature is {asked['temperature']}; give 0, or at least {LEAST_TEMPERATURE}.")
    number(asked, "top_p", 0, 1)
    if asked.get("top_p") == 0:
        raise ValueError("top_p is 0; it must be above 0, and temperature 0 is greedy.")
    for name in ("frequency_penalty", "presence_penalty"):
        number(asked, name, -2, 2)
    number(asked, "seed", 0, 2**62, int)
    bias = asked.get("logit_bias", {})
    if not isinstance(bias, dict) or not all(str(k).isdecimal() and is_number(v) for k, v in bias.items()):
        raise ValueError(f"logit_bias is {said(bias)}; it must be a number for each token id.")


def usage_asked(options: Any) -> bool:
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise ValueError(
            f'stream_options is {said(options)}; it must be {{"include_usage": true}} or left out.'
        )
    if rest := [name for name in options if name not in ("include_usage", "include_obfuscation")]:
        raise ValueError(f"stream_options has {rest[0]}; this server does not have it, so leave it out.")
    return bool(options.get("include_usage", False))


def stops(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if (
        not isinstance(found, list)
        or not all(isinstance(one, str) and one for one in found)
        or len(found) > STOPS
    ):
        raise ValueError(f"stop is {said(value)}; it must be at most {STOPS} texts that are not empty.")
    return found


def logprobs(path: str, asked: dict[str, Any]) -> int | None:
    """How many of the most probable tokens come with each; None: no logprobs."""
    value = asked.get("logprobs")
    if path == COMPLETIONS:
        if value is False:
            return None
        number(asked, "logprobs", 0, 20, int)
        return value
    if not isinstance(value, bool | None):
        raise ValueError(
            f"logprobs is {said(value)}; it must be true or false, and top_logprobs says how many."
        )
    number(asked, "top_logprobs", 0, 20, int)
    if not value and asked.get("top_logprobs"):
        raise ValueError(f"top_logprobs is {asked['top_logprobs']} without logprobs; set logprobs to true.")
    return asked.get("top_logprobs", 0) if value else None


def prompts(value: Any) -> list[Any]:
    """Texts, or lists of token ids."""
    several = value if isinstance(value, list) and not is_ids(value) else [value]
    if not several or not all(isinstance(one, str) or is_ids(one) for one in several):
        raise ValueError(f"prompt is {said(value)}; it must be a text, token ids, or a list of these.")
    if len(several) > MOST_CHOICES:
        raise ValueError(f"prompt has {len(several)} texts; send at most {MOST_CHOICES} at once.")
    return several


def is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


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


def refuse_half_characters(body: dict[str, Any]) -> None:
    """Raise ValueError for a lone surrogate, which a client sends that cuts a text within an emoji."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"the request has {half!a}, half of a character; send whole ones.") from None


def messages(found: Any, name: str) -> list[dict[str, str]]:
    if not isinstance(found, list) or not found:
        raise ValueError(f"{name} is {said(found)}; it must be a list with one message at least.")
    return [message(one) for one in found]


def message(one: Any) -> dict[str, str]:
    """A message as role and text. Raises ValueError for one that holds anything else."""
    if not isinstance(one, dict) or one.get("role") not in ROLES:
        raise ValueError(f"a message is {said(one)}; it must have a role of {', '.join(ROLES)}.")
    if one.get("type") not in (None, "message"):
        raise ValueError(f"a message has the type {said(one['type'])}; this model reads messages alone.")
    content = one.get("content")
    if isinstance(content, list) and all(is_text(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"the content of a message is {said(content)}; it must be text.")
    known = ("role", "content", "name", "type", "id", "status")
    if rest := [name for name, value in one.items() if name not in known and value]:
        raise ValueError(f"a message has {rest[0]}; this model reads roles and texts alone.")
    return {**({"name": str(one["name"])} if one.get("name") else {}), "role": one["role"], "content": content}


def is_text(part: Any) -> bool:
    kinds = ("text", "input_text", "output_text")
    return isinstance(part, dict) and part.get("type") in kinds and isinstance(part.get("text"), str)


def said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
