"""How `SMTModel` reads a sequence: the cell over time and the readout, as much at once as memory should hold.

B rows, T tokens, n of them kept, K memory tokens of width D, inputs of width I. Glossary: `cell_base`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

# Tokens between two stored memories under activation checkpointing: the memories kept are T/64, the
# activations of one chunk 64, so their sum is near its least for sequences of a few thousand tokens.
CHECKPOINT_CHUNK = 64
# Tokens that are embedded, projected, read and read out at a time where no gradient is asked for.
READ_CHUNK = 256


class Chunk(GradientCheckpointingLayer):
    """A stretch of time. Activation checkpointing keeps the arguments of `function`, and calls it again."""

    def forward(self, function, *args):
        return function(*args)


class Kept:
    """The timesteps to be read out: the last n (0: all), or those that an index tensor names."""

    def __init__(self, keep: int | torch.Tensor, length: int):
        self.keep, self.length = keep, length
        self.first = max(0, length - keep) if isinstance(keep, int) and keep else 0
        self.places: list[torch.Tensor] = []

    def of(self, chunk: torch.Tensor, start: int) -> torch.Tensor:
        """chunk (B, m, …), which begins at timestep `start` → those of it to be read out, (B, ≤m, …)."""
        if isinstance(self.keep, int):
            return chunk[:, max(0, self.first - start) :]
        if chunk.shape[1] == self.length:
            return chunk[:, self.keep]
        named = torch.arange(self.length, device=self.keep.device)[self.keep]
        places = ((named >= start) & (named < start + chunk.shape[1])).nonzero().flatten()
        self.places.append(places)
        return chunk[:, named[places] - start]

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """What `of` picked, one after another → all of it, (B, n, …), in the order in which it was named."""
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return joined[:, torch.cat(self.places).argsort()] if self.places else joined


class Reading(NamedTuple):
    """memory (B, K, D) after the last token. hidden (B, n, D): what was read out of the timesteps kept.

    layers: of all timesteps, (B, T, D) each, if they were asked for. past (B, ≤recorded, K, D): the memories
    before each of the last tokens, if they were.
    """

    memory: torch.Tensor
    hidden: torch.Tensor
    layers: tuple[torch.Tensor, ...] | None
    past: torch.Tensor | None


class ReadingMixin:
    """`_roll` and `read_out` of `SMTModel`."""

    def _inputs(self, tokens: torch.Tensor) -> torch.Tensor:
        """ids (B, m) or embeddings (B, m, D) → what the cell wants of them, (B, m, I)."""
        core: Any = self
        return core.cell.project_inputs(core.embed_tokens(tokens) if tokens.ndim == 2 else tokens)

    def _run(self, memory, inputs, mask, starts, step0: int):
        """Roll the cell over a chunk: memory (B, K, D), inputs (B, m, I) → memories (B, m, K, D)."""
        core: Any = self
        truncation = core.config.bptt_truncation if core.training else None
        fresh = core.start_memory(len(memory)) if starts is not None else memory
        memories = []
        for step, x in enumerate(inputs.unbind(1)):
            if truncation and step0 + step and (step0 + step) % truncation == 0:
                memory = memory.detach()
            if starts is not None:
                memory = torch.where(starts[:, step], fresh, memory)
            new = core.cell(memory, x)
            memory = new if mask is None else torch.where(mask[:, step], new, memory)
            memories.append(memory)
        return torch.stack(memories, dim=1)

    def _roll(self, memory, tokens, mask, starts, keep, recorded: int, show: bool) -> Reading:
        """Read ids (B, T) or embeddings (B, T, D) from memory (B, K, D) on.

        keep: see `Kept`. recorded: how many memories to return as past. show: return the layers.
        Without a gradient all is done chunk after chunk: nothing grows with T but what is returned.
        """
        core: Any = self
        length, kept = tokens.shape[1], Kept(keep, tokens.shape[1])
        run: Callable = self._run
        whole, size = None, READ_CHUNK
        if torch.is_grad_enabled():
            run, whole, size = partial(core.chunk, self._run), self._inputs(tokens), length
            # In one piece where the layers are shown: of pieces put together no logits are made.
            if not show and (kept.first or (core.training and core.chunk.gradient_checkpointing)):
                size = CHECKPOINT_CHUNK

        past_from = length - 1 - recorded
        past = [memory[:, None]] if recorded and past_from < 0 else []
        hidden: list[torch.Tensor] = []
        layers: list[tuple[torch.Tensor, ...]] = []
        for start in range(0, length, size):
            part = slice(start, start + size)
            inputs = self._inputs(tokens[:, part]) if whole is None else whole[:, part]
            flags = (None if flag is None else flag[:, part] for flag in (mask, starts))
            memories = run(memory, inputs, *flags, start)
            memory = memories[:, -1]
            if recorded and part.stop > past_from:
                past.append(memories[:, max(0, past_from - start) :])
            if show:
                memories, shown = self._show(memories)
                layers.append((*shown, self.read_out(memories)))
            elif (picked := kept.of(memories, start)).shape[1] or part.stop >= length:
                hidden.append(self.read_out(picked))
        history = torch.cat(past, dim=1)[:, :-1] if recorded else None
        if not show:
            return Reading(memory, kept.join(hidden), None, history)
        whole_layers = tuple(
            torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0] for pieces in zip(*layers, strict=True)
        )
        return Reading(memory, kept.of(whole_layers[-1], 0), whole_layers, history)

    def _show(self, memories: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """memories (…, K, D) → the same, put together from its tokens, and a token (…, D) for each lower layer.

        A layer of a stacked cell has a share of the memory; the token is the last of it.
        """
        core: Any = self
        layers = core.config.num_hidden_layers
        tokens = memories.to(core.readout.norm.weight.dtype).unbind(-2)
        shown = [tokens[max(0, layer * len(tokens) // layers - 1)] for layer in range(1, layers)]
        return torch.stack(tokens, dim=-2), shown

    def read_out(self, memories: torch.Tensor) -> torch.Tensor:
        """memories (…, K, D) → hidden states (…, D), in the dtype of the weights."""
        core: Any = self
        flat = memories.flatten(0, -3).to(core.readout.norm.weight.dtype)
        if not (core.training and core.chunk.gradient_checkpointing and torch.is_grad_enabled()):
            return core.readout(flat).view(*memories.shape[:-2], memories.shape[-1])
        # Else the readout of all timesteps at once would keep far more than the cell does over them.
        parts = flat.split(CHECKPOINT_CHUNK * memories.shape[0])
        return torch.cat([core.chunk(core.readout, part) for part in parts]).view(*memories.shape[:-2], -1)
