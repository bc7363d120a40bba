"""Which token comes next, for many rows at once, each by the processors and the seed of its own request.

n rows, V token ids. Processors are those of `transformers`. Rows whose processors are the same and look at
scores alone are processed together; what looks at a row's ids is called for that row.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as library

from .stream import Token

# Processors that see scores only, and the settings that tell two of them apart.
BY_SCORES = {
    library.TemperatureLogitsWarper: ("temperature",),
    library.TopKLogitsWarper: ("top_k", "filter_value"),
    library.TopPLogitsWarper: ("top_p", "filter_value", "min_tokens_to_keep"),
    library.MinPLogitsWarper: ("min_p", "filter_value", "min_tokens_to_keep"),
    library.InfNanRemoveLogitsProcessor: (),
}
# What changes how `generate` searches, or what it returns; here one row is one request.
REFUSED: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "guidance_scale": (None, 1, 1.0),
    "penalty_alpha": (None, 0, 0.0),
    "dola_layers": (None,),
    "prompt_lookup_num_tokens": (None,),
    "assistant_early_exit": (None,),
    "stop_strings": (None,),
    "max_time": (None,),
    "watermarking_config": (None,),
    "token_healing": (None, False),
    "return_dict_in_generate": (None, False),
    "output_scores": (None, False),
    "output_logits": (None, False),
    "output_hidden_states": (None, False),
    "output_attentions": (None, False),
    "use_cache": (None, True),
    "cache_implementation": (None,),
    "compile_config": (None,),
}
DEFAULT_TOKENS = 20  # of `generate`
DRAWS = 64  # random numbers that a row draws at a time


class Choosing:
    """What one request asks of its tokens. Raises ValueError for what a row of a batch cannot do."""

    def __init__(
        self,
        model: Any,
        generation_config: GenerationConfig | None,
        prompt: list[int],
        seed: int | None,
        logprobs: int | None,
        processors: Sequence[Any] = (),
    ):
        given = GenerationConfig() if generation_config is None else generation_config
        for name, allowed in REFUSED.items():
            if (value := getattr(given, name, None)) not in allowed:
                raise ValueError(
                    f"{name} is {value!r}, which the engine does not do; use model.generate for it."
                )
        config, _ = model._prepare_generation_config(given)
        model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device=model.device)
        self.max_new_tokens = new_tokens(given, config, len(prompt))
        self.ends = frozenset(() if (ends := config._eos_token_tensor) is None else ends.tolist())
        self.processors: LogitsProcessorList = model._get_logits_processor(
            config, len(prompt), device=model.device, model_kwargs={},
            logits_processor=LogitsProcessorList(processors),
        )  # fmt: skip
        self.sampled, self.logprobs = bool(config.do_sample), logprobs
        self.group = group_of(self.processors) if self.sampled or self.processors else ()
        self.new_ids: list[int] = []
        self.prompt = prompt
        self.device = model.device
        self.generator = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
        self.draws: list[float] = []

    def draw(self) -> float:
        """The next random number of this request, in [0, 1)."""
        if not self.draws:
            self.draws = torch.rand(DRAWS, generator=self.generator).tolist()[::-1]
        return self.draws.pop()

    def process(self, scores: torch.Tensor) -> torch.Tensor:
        """scores (1, V) by all processors, which may look at the ids of the row."""
        ids: Any = torch.tensor([self.prompt + self.new_ids], device=self.device)
        return self.processors(ids, scores)


def new_tokens(given: GenerationConfig, config: GenerationConfig, prompt_tokens: int) -> int:
    """How many tokens a request may have: as `generate` counts them."""
    if config.max_new_tokens is not None:
        most = config.max_new_tokens
    elif given.max_length is not None or config.max_length not in (None, DEFAULT_TOKENS):
        most = config.max_length - prompt_tokens
    else:
        most = DEFAULT_TOKENS
    if most < 1:
        raise ValueError(f"max_new_tokens is {most}; it must be at least 1.")
    return most


def group_of(processors: LogitsProcessorList) -> tuple[Any, ...] | None:
    """What rows must share to be processed together; None for processors that look at a row's ids."""
    if any(type(one) not in BY_SCORES for one in processors):
        return None
    return tuple((type(one), *(getattr(one, name) for name in BY_SCORES[type(one)])) for one in processors)


class Part:
    """Rows (m of the n) that are processed by one call."""

    def __init__(self, places: list[int], rows: list[Choosing], total: int, device: torch.device):
        self.rows, self.places = rows, places
        self.all = len(places) == total
        self.index = torch.tensor(places, device=device)
        self.first = rows[0]

    def of(self, scores: torch.Tensor) -> torch.Tensor:
        return scores if self.all else scores[self.index]


def parts_of(rows: list[Choosing], device: torch.device) -> list[Part]:
    groups: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        key = ("alone", place) if row.group is None else (row.sampled, row.group)
        groups.setdefault(key, []).append(place)
    return [Part(places, [rows[place] for place in places], len(rows), device) for places in groups.values()]


def choose(
    rows: list[Choosing], parts: list[Part], logits: torch.Tensor
) -> tuple[torch.Tensor, list[Token], dict[int, Exception]]:
    """rows (n) and their logits (n, V) → ids (n,), their tokens, and what a row's processor or sampling raised.

    parts: of `parts_of`, for as long as the rows are the same.
    """
    failures: dict[int, Exception] = {}
    logits = logits.float()
    if len(parts) == 1 and not parts[0].first.sampled and not parts[0].first.processors:
        ids = logits.argmax(-1)
    else:
        ids = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
        for part in parts:
            try:
                ids[part.index] = choose_part(part, part.of(logits))
            except Exception as failure:  # of one row's processor or scores: each row answers for itself
                if len(part.places) == 1:
                    failures[part.places[0]] = failure
                    continue
                for place, row in zip(part.places, part.rows, strict=True):
                    alone = Part([place], [row], len(rows), logits.device)
                    try:
                        ids[place] = choose_part(alone, alone.of(logits))[0]
                    except Exception as error:
                        failures[place] = error
    chosen = ids.tolist()
    tokens = [Token(one) for one in chosen]
    asked = [place for place, row in enumerate(rows) if row.logprobs is not None]
    if asked:
        said = logits[torch.tensor(asked, device=logits.device)].log_softmax(-1)
        for line, place in enumerate(asked):
            most = rows[place].logprobs or 0
            (tokens[place],) = tokens_with(said[line : line + 1], [chosen[place]], most)
    return ids, tokens, failures


def choose_part(part: Part, scores: torch.Tensor) -> torch.Tensor:
    """scores (m, V) → ids (m,)."""
    first = part.first
    if first.group is None:
        scores = first.process(scores)
    elif first.processors:
        scores = first.processors(None, scores)  # type: ignore[arg-type]  # none of them looks at ids
    if not first.sampled:
        return scores.argmax(-1)
    probabilities = scores.softmax(-1)
    if not torch.isfinite(probabilities[:, 0]).all():  # one entry that is not finite makes the whole row so
        raise ValueError("the scores are not finite")
    drawn = torch.tensor([row.draw() for row in part.rows], device=scores.device)[:, None]
    below = probabilities.cumsum(-1)
    whole = below[:, -1:]
    # The first token up to which more than the drawn share of all probability lies. By rounding that may be
    # none: then the last one that adds any.
    return torch.minimum((below <= drawn * whole).sum(-1), (below < whole).sum(-1))


def tokens_with(said: torch.Tensor, ids: list[int], most: int) -> list[Token]:
    """said (m, V) log-probabilities, of which ids (m) were chosen → `Token`s with the `most` probable ones."""
    own = said.gather(1, torch.tensor(ids, device=said.device)[:, None])[:, 0].tolist()
    if not most:
        return [Token(*pair) for pair in zip(ids, own, strict=True)]
    values, indices = said.topk(min(most, said.shape[-1]), dim=-1)
    tops = [
        tuple(zip(line, numbers, strict=True))
        for line, numbers in zip(indices.tolist(), values.tolist(), strict=True)
    ]
    return [Token(*three) for three in zip(ids, own, tops, strict=True)]
