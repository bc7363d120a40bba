"""A state as a thing: saved to a file, loaded elsewhere, gone on from.

B rows, K memory tokens of width D. A file is safetensors with three tensors: `memory` (B, K, D), and what tells
another model's state apart, the `initial_memory` (K, D) of the model that made it and its `reading` (K, D) of a
few fixed tokens, which files of smt-hf 0.1 and of the web page do not have.
"""

import os
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_utils import PreTrainedModel

from .library_names import takes_state
from .state_cache import MemoryLayer, memory_layer

STATE_FORMAT = "smt_state"
STATE_VERSION = 1
# Half precision moves an entry of a unit-RMS memory by less than this; another model's differ by about 1.
SAME_MEMORY = 0.05
# The root mean square by which a reading of eight tokens may differ. Of the example that comes with smt-hf,
# bfloat16 moves it by 0.006, int8 weights by 0.015 and int8 products by 0.029; 40 steps of fine-tuning by 0.14.
READ, SAME_READING = 8, 0.1


class StateMixin(PreTrainedModel):
    """`save_state` and `load_state`, for `SMTModel` and `SMTForCausalLM`."""

    @torch.no_grad()
    def _initial_memory(self) -> torch.Tensor:
        """m_∅, (K, D), where the model computes, which may not be where its weights are."""
        core: Any = self.base_model
        return core.start_memory(1)[0]

    @torch.no_grad()
    def _reading(self) -> torch.Tensor:
        """What the model makes of a few tokens, (K, D) float32.

        Fine-tuning changes it, and may leave the initial memory as it is.
        """
        core: Any = self.base_model
        known = min(core.config.vocab_size, 256)  # so that tokens which are added change nothing
        ids = (torch.arange(READ, device=self._initial_memory().device) * 31 + 32) % known
        layer: Any = memory_layer(core(ids[None], use_cache=True, return_dict=True).cache)
        return layer.memory[0].float().cpu()

    @takes_state
    def save_state(self, cache: Cache | None, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Write the state that `forward` or `generate` returned: a few kilobytes, whatever it has read.

        Raises ValueError for a state that has read nothing, FileExistsError for a path that is taken.
        """
        path = Path(path)
        if cache is None:
            raise ValueError(
                "there is no state to save; call the model with use_cache=True, which Trainer switches off in "
                "the config."
            )
        memory = memory_layer(cache).memory
        if memory is None:
            raise ValueError("the state has read nothing yet; there is nothing to save.")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; choose another path or pass overwrite=True.")
        tensors = {
            "memory": memory.cpu().contiguous(),
            "initial_memory": self._initial_memory().cpu(),
            "reading": self._reading().half(),
        }
        about = {
            "format": STATE_FORMAT,
            "version": str(STATE_VERSION),
            "num_tokens": str(int(cache.get_seq_length())),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")  # whole or absent
        save_file(tensors, part, metadata=about)
        part.replace(path)

    def load_state(self, path: str | os.PathLike) -> DynamicCache:
        """Read a saved state, ready to be passed as `cache`, on this model's device.

        Raises FileNotFoundError, and ValueError for a file that is no state, is of a newer format, or was
        made by another model, or by this one before its weights were changed.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no state at {path}.")
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(f"{path} is not a saved state: {error}.") from None
        if about.get("format") != STATE_FORMAT:
            raise ValueError(f"{path} is not a saved state but other safetensors; save_state writes states.")
        if int(about["version"]) > STATE_VERSION:
            raise ValueError(
                f"{path} has state format {about['version']}, this code reads up to {STATE_VERSION}; update it."
            )
        here = self._initial_memory()
        mine, made_by = here.cpu(), tensors["initial_memory"]
        if mine.shape != made_by.shape or (mine - made_by).abs().max() > SAME_MEMORY:
            raise ValueError(
                f"{path} was made by another model (memory {tuple(made_by.shape)}, this model's is "
                f"{tuple(mine.shape)} and starts elsewhere); load it with the model that saved it."
            )
        if "reading" in tensors:
            moved = (self._reading() - tensors["reading"]).square().mean().sqrt().item()
            if not moved <= SAME_READING:
                raise ValueError(
                    f"{path} was made with other weights, such as those before a fine-tuning (they read a text "
                    f"otherwise by {moved:.2f}); make it again with this model."
                )
        state = DynamicCache(config=self.config)
        layer = cast(MemoryLayer, state.layers[0])
        layer.write(tensors["memory"].to(here.device), int(about["num_tokens"]))
        return state
