"""Tokens of the Hub, which no message may show."""

import re

# What the Hub's tokens look like, in case that one is shown which is not the user's current one.
TOKEN = re.compile(r"\b(?:hf|api_org)_\w{6,}|(?<=Bearer )[^\s'\",;]+")


def masked(text: str) -> str:
    """The text with stars for every token in it."""
    from huggingface_hub import get_token

    if token := get_token():
        text = text.replace(token, "***")
    return TOKEN.sub("***", text)
