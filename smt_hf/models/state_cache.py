"""The memory as a `transformers` cache layer: a state whose bytes never grow.

Importing this module registers the layer type "smt_memory" with `transformers`, so that
`DynamicCache(config=…)` and `StaticCache(config=…)`, which `generate` builds, hold one.
"""

from typing import Any

import torch
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    STATIC_LAYER_TYPE_MAPPING,
    CacheLayerMixin,
)

from .library_names import check_library, refuse_keys_and_values

# Tokens that a recording state can go back; more only over the last forward, if that read out more.
HISTORY_BOUND = 128


class MemoryLayer(CacheLayerMixin):
    """Holds m_t, (B, K, D) float32, and the number of tokens read, padding included.

    While recording (assisted decoding switches it on), the memories of the last HISTORY_BOUND tokens
    are kept too, so that `crop` can go back by as many; after a forward that read out more, as many as that.
    """

    _layer_type: str | None = "smt_memory"
    is_compileable = True
    is_sliding = False
    supports_early_init = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.memory: torch.Tensor | None = None
        self.num_tokens: Any = 0  # an int; in a static layer a tensor
        self.record_past = False  # the name by which `transformers` switches it off again
        self.history: torch.Tensor | None = None  # (B, n, K, D): memories before each of the last n tokens

    def read(self) -> torch.Tensor | None:
        """The memory, or None when nothing has been read yet: the model then starts from m_∅."""
        return self.memory

    def write(self, memory: torch.Tensor, num_new_tokens: int, history: torch.Tensor | None = None) -> None:
        """Take over the memory after `num_new_tokens` more tokens.

        Detached, as a state carries no graph, and copied: a slice would keep alive all it was cut from.
        """
        self.memory = memory.detach().clone()
        self.num_tokens += num_new_tokens
        if history is None:
            self.history = None  # it would not be the past of this memory
        else:
            past = history if self.history is None else torch.cat([self.history, history], dim=1)
            self.history = past[:, -max(HISTORY_BOUND, history.shape[1]) :].detach().clone()
        self.is_initialized = True

    def activate_past_recording(self) -> None:
        self.record_past = True

    @property
    def is_croppable(self) -> bool:  # type: ignore[override]  # transformers declares a plain attribute
        return self.record_past

    def crop(self, tokens_to_remove: int) -> None:
        """Go back by `-tokens_to_remove` tokens (0 or a negative number), at most as far as the history."""
        back = -tokens_to_remove
        if back < 0:
            raise ValueError(f"crop takes 0 or a negative number of tokens to remove, not {tokens_to_remove}.")
        if back == 0:
            return
        held = 0 if self.history is None else self.history.shape[1]
        if self.history is None or back > held:
            raise ValueError(
                f"the state cannot go back {back} token(s): it holds the past of {held}; call "
                f"activate_past_recording() before the forward that is to be undone."
            )
        self.memory = self.history[:, held - back].clone()
        self.history = self.history[:, : held - back]
        self.num_tokens -= back

    def lazy_initialization(self, key_states, value_states) -> None:
        """Nothing to allocate: the first write brings the memory."""

    def update(self, key_states, value_states, *args, **kwargs):
        raise NotImplementedError("a memory has no keys and values; the model reads and writes it whole.")

    def get_seq_length(self) -> int:
        return self.num_tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.num_tokens + query_length, 0

    def get_max_length(self) -> int:
        return -1  # no bound: that is the point

    def reset(self) -> None:
        # Dropped rather than zeroed: zeros are not the initial memory.
        self.memory, self.history, self.num_tokens, self.is_initialized = None, None, 0, False

    def _apply(self, change) -> None:
        if self.memory is not None:
            self.memory = change(self.memory)
        if self.history is not None:
            self.history = change(self.history)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._apply(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._apply(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._apply(lambda x: x[indices.to(x.device)])

    def offload(self) -> None:
        """A few kilobytes are not worth moving to the CPU and back."""

    def prefetch(self) -> None:
        """See `offload`."""


class StaticMemoryLayer(MemoryLayer):
    """The same at a fixed address, for `cache_implementation="static"` and `torch.compile`.

    The memory is written in place, and the count of tokens is a tensor, so that a compiled forward is one
    graph for every token. It does not record, so it cannot go back.
    """

    _layer_type = None  # registered below: `transformers` would take it for the dynamic one

    def __init__(self, max_cache_len: int | None = None, **kwargs):
        super().__init__(**kwargs)  # max_cache_len: a memory has no length to bound

    def write(self, memory: torch.Tensor, num_new_tokens: int, history: torch.Tensor | None = None) -> None:
        if self.memory is None:
            self.memory = memory.detach().clone()
            self.num_tokens = torch.zeros((), dtype=torch.long, device=memory.device)
            if not torch.compiler.is_compiling():
                torch._dynamo.mark_static_address(self.memory)
                torch._dynamo.mark_static_address(self.num_tokens)
        else:
            self.memory.copy_(memory.detach())
        self.num_tokens += num_new_tokens
        self.is_initialized = True

    def activate_past_recording(self) -> None:
        raise ValueError("a static cache cannot go back; use the default cache for assisted decoding.")

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self.memory is not None:
            self.memory.copy_(self.memory.index_select(0, beam_idx.to(self.memory.device)))


def memory_layer(cache: Any) -> MemoryLayer:
    """The layer of a state that holds the memory. Raises ValueError for the cache of another kind of model."""
    refuse_keys_and_values(cache)
    return cache.layers[0]


STATIC_LAYER_TYPE_MAPPING["smt_memory"] = StaticMemoryLayer
# The dynamic one registered itself, by its `_layer_type`.
if DYNAMIC_LAYER_TYPE_MAPPING.get("smt_memory") is not MemoryLayer:
    check_library(["the registration of cache layers by their _layer_type"])
