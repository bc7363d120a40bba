"""From tokens to text as it may be shown: whole characters, and nothing of a stop string."""

from typing import Any

from tokenizers.decoders import DecodeStream

from .stream import Token


class Text:
    """Text that grows by tokens. It ends before the first of `stops`, whatever tokens that is split over.

    A character comes with its last byte. What may be the beginning of a stop string is held back.
    """

    def __init__(self, tokenizer: Any, stops: list[str]):
        self.tokenizer, self.stops = tokenizer, stops
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.held, self.undecoded = "", list[int]()
        self.stopped = False

    def add(self, token: int) -> str:
        """What may be shown now."""
        self.undecoded.append(token)
        piece = self.decoder.step(self.tokenizer.backend_tokenizer, token)
        if piece is None:
            return ""
        self.undecoded = []
        return self._show(piece)

    def ends(self, token: int) -> bool:
        """Whether the text is over with this token: what the engine asks of a copy of its own."""
        self.add(token)
        return self.stopped

    def end(self) -> str:
        """What was held back, when no more tokens come."""
        rest = self.tokenizer.decode(self.undecoded, skip_special_tokens=True) if self.undecoded else ""
        shown = self._show(rest)
        return shown if self.stopped else shown + self.held

    def _show(self, piece: str) -> str:
        text = self.held + piece
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self.held = True, ""
            return text[: min(places)]
        keep = max((overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class Offsets:
    """Where in a text its tokens begin. The tokens of one character all begin where it does."""

    def __init__(self, tokenizer: Any):
        self.text, self.length = Text(tokenizer, stops=[]), 0

    def of(self, token: int) -> int:
        """Of the next token: the characters before it."""
        start = self.length
        self.length += len(self.text.add(token))
        return start


class TokenTexts:
    """Logprobs of tokens as the API tells them."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def text(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))

    def of_completion(self, tokens: list[Token], most: int, offsets: Offsets) -> dict[str, Any]:
        """offsets: have seen the tokens before these."""
        tops = [{self.text(one): number for one, number in token.top[:most]} for token in tokens]
        return {
            "tokens": [self.text(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [top or None for top in tops] if most else None,
            "text_offset": [offsets.of(token.id) for token in tokens],
        }

    def of_chat(self, tokens: list[Token], most: int) -> dict[str, Any]:
        lines = []
        for token in tokens:
            top = [self.line(one, number) for one, number in token.top[:most]]
            lines.append({**self.line(token.id, token.logprob), "top_logprobs": top})
        return {"content": lines, "refusal": None}

    def line(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self.text(token)
        return {"token": text, "logprob": logprob, "bytes": None if "�" in text else list(text.encode())}
