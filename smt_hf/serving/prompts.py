"""Reading prompts: a chunk of several at once, each from its own memory on."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .choosing import Choosing, tokens_with
from .stream import Stream


class Row:
    """A request, from when it waits until its text ends."""

    def __init__(
        self,
        ids: list[int],
        stream: Stream,
        choosing: Choosing,
        start: torch.Tensor,
        ends: Callable[[int], bool] | None = None,
    ):
        self.ids, self.stream, self.choosing, self.ends = ids, stream, choosing, ends
        self.memory = start  # (K, D) of a row that reads; those that generate are in the engine's matrix
        self.read = 0  # tokens of `ids` that the memory has seen

    def take_up(self, found: tuple[int, torch.Tensor] | None) -> None:
        """Begin with a stored state, (tokens, memory (K, D)), if there is one."""
        if found is not None:
            self.read, memory = found
            self.memory = memory.to(self.memory.device)
            self.stream.cached_tokens = self.read

    def ended_by(self, token: int) -> str | None:
        """Why a text is over with this token, its last; None if it goes on."""
        if token in self.choosing.ends or (self.ends is not None and self.ends(token)):
            return "stop"
        return "length" if len(self.choosing.new_ids) >= self.choosing.max_new_tokens else None


def checked_ids(input_ids: Sequence[int], size: int) -> list[int]:
    """The ids of a prompt. Raises ValueError for what a model with `size` token ids cannot read."""
    ids = [int(one) for one in input_ids]
    if not ids:
        raise ValueError("the prompt has no tokens; give at least one, for instance the bos token.")
    if wrong := [one for one in ids if not 0 <= one < size]:
        raise ValueError(f"the prompt has token id {wrong[0]}; ids of this model are 0 to {size - 1}.")
    return ids


def read_tokens(model: Any, rows: list[Row], counts: list[int]) -> None:
    """Read `counts` more tokens of each row; what is shorter than the longest keeps its memory meanwhile."""
    core, device, longest = model.model, rows[0].memory.device, max(counts)
    parts = [row.ids[row.read : row.read + count] for row, count in zip(rows, counts, strict=True)]
    ids = torch.tensor([part + [0] * (longest - len(part)) for part in parts], device=device)
    mask = None
    if min(counts) < longest:
        real = torch.arange(longest, device=device) < torch.tensor(counts, device=device)[:, None]
        mask = real[:, :, None, None]
    memory = torch.stack([row.memory for row in rows])
    memories = core._run(memory, core.cell.project_inputs(core.embed_tokens(ids)), mask, None, 0)
    last = memories[:, -1].clone()
    for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
        followers = row.ids[row.read + 1 : row.read + count + 1]
        if row.stream.wants_prompt and followers:
            hidden = core.read_out(memories[place, : len(followers)])
            said = model.lm_head(hidden).float().log_softmax(-1)
            row.stream.prompt_logprobs += tokens_with(said, followers, row.choosing.logprobs or 0)
        row.read += count
        row.memory = last[place]
