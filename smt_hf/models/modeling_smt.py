"""SMTModel and SMTForCausalLM: a recurrent language model with a memory of fixed size.

B rows, T tokens, K memory tokens of width D, V token ids. Glossary: `cell_base`.
"""

from typing import Unpack, cast

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple

from .cache_smt import HISTORY_BOUND, MemoryLayer
from .cells import build_cell
from .configuration_smt import SMTConfig
from .decoding_smt import DecodingMixin
from .keywords import LossKeywords, RowKeywords, document_starts, refuse_unknown
from .layers import init_weights, normalize_memory, token_mask
from .library_names import (
    STATE_NAME,
    STATE_NAMES,
    LMOutputWithState,
    ModelOutputWithState,
    state_of,
    takes_state,
)
from .prefill_smt import PrefillMixin
from .readout import Readout
from .state_smt import StateMixin

# Tokens between two stored memories under activation checkpointing: the memories kept are T/64, the
# activations of one chunk 64, so their sum is near its least for sequences of a few thousand tokens.
CHECKPOINT_CHUNK = 64


class SMTPreTrainedModel(PrefillMixin, StateMixin, PreTrainedModel):
    config_class = SMTConfig
    config: SMTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    # The memory layer rolls back by itself (`crop`), so assisted decoding need not refuse the model.
    _is_stateful = False
    _can_compile_fullgraph = True
    _supports_context_parallel = False
    _skip_keys_device_placement = list(STATE_NAMES)  # noqa: RUF012 - transformers reads a class list

    @torch.no_grad()
    def _init_weights(self, module):
        init_weights(module, self.config.initializer_range)
        if isinstance(module, SMTModel):
            init.normal_(module.initial_memory)


class SMTModel(SMTPreTrainedModel):
    """Embedding, cell over time, readout over all kept timesteps in one batched call."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.initial_memory = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        self.cell = build_cell(config)
        self.readout = Readout(config)
        self.gradient_checkpointing = False
        self.post_init()

    def start_memory(self, batch_size: int) -> torch.Tensor:
        """m_∅ for every row, (B, K, D) float32: what is known before any token."""
        memory = normalize_memory(self.initial_memory, self.config.rms_norm_eps)
        return memory.expand(batch_size, -1, -1)

    def memory_before(self, layer: MemoryLayer | None, batch_size: int) -> torch.Tensor:
        """The memory (B, K, D) that a state holds, or m_∅ where nothing has been read."""
        memory = None if layer is None else layer.read()
        if memory is None:
            return self.start_memory(batch_size)
        if memory.shape[0] != batch_size:
            raise ValueError(
                f"the state holds {memory.shape[0]} row(s) but the input has {batch_size}; repeat or select "
                f"the state with cache.batch_repeat_interleave or batch_select_indices."
            )
        return memory

    def _run(self, memory, inputs, mask, starts, step0: int):
        """Roll the cell over a chunk: memory (B, K, D), inputs (B, n, I) → memories (B, n, K, D)."""
        truncation = self.config.bptt_truncation if self.training else None
        fresh = self.start_memory(len(memory)) if starts is not None else memory
        memories = []
        for step, x in enumerate(inputs.unbind(1)):
            if truncation and step0 + step and (step0 + step) % truncation == 0:
                memory = memory.detach()
            if starts is not None:
                memory = torch.where(starts[:, step], fresh, memory)
            new = self.cell(memory, x)
            memory = new if mask is None else torch.where(mask[:, step], new, memory)
            memories.append(memory)
        return torch.stack(memories, dim=1)

    def _roll(self, memory, inputs, mask, starts, keep_from: int):
        """All T steps → the last memory, and the memories from `keep_from` on, (B, T − keep_from, K, D)."""
        length = inputs.shape[1]
        checkpointing = self.gradient_checkpointing and self.training
        # Without a gradient the chunk only bounds how many memories are alive that nobody will read.
        bounded = checkpointing or keep_from > 0
        size = CHECKPOINT_CHUNK if bounded else max(length, 1)
        kept = []
        for start in range(0, length, size):
            part = slice(start, start + size)
            flags = (None if flag is None else flag[:, part] for flag in (mask, starts))
            args = (memory, inputs[:, part], *flags, start)
            chunk = self._gradient_checkpointing_func(self._run, *args) if checkpointing else self._run(*args)
            memory = chunk[:, -1]
            if start + chunk.shape[1] > keep_from:
                kept.append(chunk[:, max(0, keep_from - start) :])
        return memory, torch.cat(kept, dim=1) if len(kept) > 1 else kept[0]

    @can_return_tuple
    @takes_state
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[RowKeywords],
    ) -> BaseModelOutputWithPast:
        """Read T more tokens.

        input_ids (B, T) or inputs_embeds (B, T, D). attention_mask (B, ≥T): the last T columns say which
        tokens are real; a padded token leaves the memory as it is, m = where(mask_t, f(m, x_t), m).
        cache: the memory so far; m_∅ without it (past_key_values is its name before transformers 5.24).
        logits_to_keep: read out only the last n timesteps (0: all), or those that an index tensor names.
        kwargs: `RowKeywords`. The documents of packed rows that they tell each begin with m_∅.

        Returns last_hidden_state (B, T or n, D) and, with use_cache, as cache the memory after token T.
        Raises ValueError for both or neither of input_ids and inputs_embeds, for an empty input, and for a
        state of another batch size; TypeError for a keyword that is not known.
        """
        refuse_unknown(cast(dict, kwargs), RowKeywords)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        batch, length = inputs_embeds.shape[:2]
        if length == 0:
            raise ValueError("the input has no tokens; give at least one, for instance the bos token.")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)

        layer = None if cache is None else cast(MemoryLayer, cache.layers[0])
        memory = self.memory_before(layer, batch)
        mask = token_mask(attention_mask, length)
        starts = document_starts(kwargs, mask, inputs_embeds.shape[:2])

        last = logits_to_keep if isinstance(logits_to_keep, int) else 0
        keep_from = max(0, length - last) if last else 0
        recording = layer is not None and layer.record_past
        if recording:
            keep_from = max(0, min(keep_from, length - HISTORY_BOUND - 1))
        before = memory
        memory, memories = self._roll(memory, self.cell.project_inputs(inputs_embeds), mask, starts, keep_from)
        if layer is not None:
            history = None
            if recording:
                history = memories[:, :-1]
                if not keep_from:
                    history = torch.cat([before[:, None], history], dim=1)
                # Drafts are read out, so as many can be taken back, however many they are.
                history = history[:, -max(HISTORY_BOUND, last) :]
            layer.write(memory, length, history)

        if isinstance(logits_to_keep, torch.Tensor):
            memories = memories[:, logits_to_keep]
        elif logits_to_keep:
            memories = memories[:, -logits_to_keep:]
        hidden = self.read_out(memories)
        keep_hidden = kwargs.get("output_hidden_states")
        keep_hidden = self.config.output_hidden_states if keep_hidden is None else keep_hidden
        return ModelOutputWithState(
            last_hidden_state=hidden,
            hidden_states=(inputs_embeds, hidden) if keep_hidden else None,
            **{STATE_NAME: cache if use_cache else None},
        )

    def read_out(self, memories: torch.Tensor) -> torch.Tensor:
        """memories (…, K, D) → hidden states (…, D), in the dtype of the weights."""
        flat = memories.flatten(0, -3).to(self.readout.norm.weight.dtype)
        if not (self.gradient_checkpointing and self.training):
            return self.readout(flat).view(*memories.shape[:-2], -1)
        # Else the readout of all timesteps at once would keep far more than the cell does over them.
        parts = flat.split(CHECKPOINT_CHUNK * memories.shape[0])
        hidden = [self._gradient_checkpointing_func(self.readout, part) for part in parts]
        return torch.cat(hidden).view(*memories.shape[:-2], -1)


class SMTForCausalLM(DecodingMixin, SMTPreTrainedModel, GenerationMixin):
    """`SMTModel` and a linear head. With labels, the loss is backpropagated through time."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.model = SMTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    @takes_state
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[LossKeywords],
    ) -> CausalLMOutputWithPast:
        """As `SMTModel.forward`, with logits (B, T or n, V) and, given labels, the loss in nats per token.

        labels (B, T) are unshifted, as everywhere in `transformers`. kwargs: `LossKeywords`; shift_labels are
        aligned with the logits. −100 is ignored.
        """
        refuse_unknown(cast(dict, kwargs), LossKeywords)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            return_dict=True,
            **{name: value for name, value in kwargs.items() if name in RowKeywords.__annotations__},
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=kwargs.get("num_items_in_batch"),
                shift_labels=kwargs.get("shift_labels"),
            )
        return LMOutputWithState(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            **{STATE_NAME: state_of(outputs)},
        )

    _forward_of_step = forward  # a subclass with a forward of its own is decoded by `transformers`


# Every save_pretrained copies the files of this folder beside the weights and names the classes in
# config.json, so that `trust_remote_code=True` loads a checkpoint where smt_hf is not installed.
SMTConfig.register_for_auto_class()
SMTModel.register_for_auto_class("AutoModel")
SMTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
# Trainer's label smoothing shifts the labels of the models named here, and of no other.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["smt"] = "SMTForCausalLM"
