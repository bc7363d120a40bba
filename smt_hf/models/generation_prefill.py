"""Reading by Jacobi sweeps: applications of the cell that wait for one another number sweeps, not tokens.

B rows, T tokens, n of them in a chunk, K memory tokens of width D.
"""

from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_utils import PreTrainedModel

from .layers import token_mask
from .library_names import takes_state
from .state_cache import memory_layer


class PrefillOutput(NamedTuple):
    """The state, and how it came about.

    residual: the most that an entry of a memory (of RMS 1) moved after the next was made from it; 0 if none
    did. No bound of the error, which the cell may carry on. sweeps: of all chunks, also those that did not
    settle. fallbacks: chunks that did not, and were read one token after another.
    """

    cache: Cache
    residual: float
    sweeps: int
    fallbacks: int

    @property
    def past_key_values(self) -> Cache:
        """The state, by its name before transformers 5.24."""
        return self.cache


def sweep(cell, memory, inputs, mask, tolerance: float, max_sweeps: int):
    """memory (B, K, D), inputs (B, n, I), mask (B, n, 1, 1) or None → (m_n or None, residual, sweeps).

    All memories start as the first. A sweep makes each anew from the one before it. What was made from a
    memory that then stayed is settled: one more at every sweep at least, so n sweeps read sequentially.
    """
    length, done, residual = inputs.shape[1], 0, 0.0
    memories = memory[:, None].expand(-1, length + 1, -1, -1).contiguous()
    for number in range(1, max_sweeps + 1):
        before = memories[:, done:-1]
        new = cell(before.flatten(0, 1), inputs[:, done:].flatten(0, 1)).view_as(before)
        new = new if mask is None else torch.where(mask[:, done:], new, before)
        moved = (new - memories[:, done + 1 :]).abs().amax((0, 2, 3)).tolist()
        memories[:, done + 1 :] = new
        while done < length - 1 and (first := moved.pop(0)) <= tolerance:  # never, if it is not a number
            done, residual = done + 1, max(residual, first)
        done += 1
        if done == length:
            return memories[:, -1], residual, number
    return None, 0.0, max_sweeps


class PrefillMixin(PreTrainedModel):
    @takes_state
    @torch.no_grad()
    def prefill(
        self, input_ids: torch.Tensor, cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None, *,
        tolerance: float = 1e-4, max_sweeps: int = 64, chunk: int = 256,
    ) -> PrefillOutput:  # fmt: skip
        """Read input_ids (B, T) as `forward` does, up to `tolerance`, by sweeps over `chunk` tokens at a time.

        Leave the last token of a prompt to `generate`. A sweep costs what reading the chunk does, if all at
        once, so this is for devices that one token leaves idle. Raises ValueError for a state of other rows and
        for a mask of fewer columns.
        """
        if not (tolerance >= 0 and max_sweeps >= 1 and chunk >= 1):
            raise ValueError(f"{tolerance=}, {max_sweeps=}, {chunk=} must be at least 0, 1 and 1.")
        core: Any = self.base_model
        state: Any = DynamicCache(config=core.config) if cache is None else cache
        layer = memory_layer(state)
        memory = core.memory_before(layer, len(input_ids))
        input_ids = input_ids.to(memory.device)  # as the hooks of an offloaded model do around `forward`
        mask = token_mask(
            None if attention_mask is None else attention_mask.to(memory.device), input_ids.shape[1]
        )
        residual, sweeps, fallbacks = 0.0, 0, 0
        for start in range(0, input_ids.shape[1], chunk):
            inputs = core.cell.project_inputs(core.embed_tokens(input_ids[:, start : start + chunk]))
            flags = None if mask is None else mask[:, start : start + chunk]
            last, moved, number = sweep(core.cell, memory, inputs, flags, tolerance, max_sweeps)
            if last is None:
                last, fallbacks = core._run(memory, inputs, flags, None, 0)[:, -1], fallbacks + 1
            memory, residual, sweeps = last, max(residual, moved), sweeps + number
        layer.write(memory, input_ids.shape[1])
        return PrefillOutput(state, residual, sweeps, fallbacks)
