"""SMTModel and SMTForCausalLM: a recurrent language model with a memory of fixed size.

B rows, T tokens, K memory tokens of width D, V token ids. Glossary: `cell_base`.
"""

from typing import Any, Unpack, cast

import torch
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple

from .cells import build_cell
from .configuration_smt import SMTConfig
from .generation_loop import DecodingMixin
from .generation_prefill import PrefillMixin
from .keywords import LossKeywords, RowKeywords, document_starts, refuse_kept_beside_labels, refuse_unknown
from .layers import init_weights, normalize_memory, token_mask
from .library_names import (
    STATE_NAME,
    STATE_NAMES,
    LMOutputWithState,
    ModelOutputWithState,
    state_of,
    takes_state,
)
from .reading import Chunk, ReadingMixin
from .readout import Readout
from .state_cache import HISTORY_BOUND, MemoryLayer, memory_layer
from .state_file import StateMixin


class SMTPreTrainedModel(PrefillMixin, StateMixin):
    config_class = SMTConfig
    config: SMTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    # The memory layer rolls back by itself (`crop`), so assisted decoding need not refuse the model.
    _is_stateful = False
    _can_compile_fullgraph = True
    _supports_context_parallel = False
    _skip_keys_device_placement = list(STATE_NAMES)  # noqa: RUF012 - transformers reads a class list

    def __init__(self, config: SMTConfig):
        config.check_supported()
        super().__init__(config)

    @torch.no_grad()
    def _init_weights(self, module):
        init_weights(module, self.config.initializer_range)
        if isinstance(module, SMTModel):
            init.normal_(module.initial_memory)


class SMTModel(ReadingMixin, SMTPreTrainedModel):
    """Embedding, cell over time, readout over all kept timesteps in one batched call."""

    def __init__(self, config: SMTConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.initial_memory = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        self.cell = build_cell(config)
        self.readout = Readout(config)
        self.chunk = Chunk()
        self.post_init()

    def start_memory(self, batch_size: int) -> torch.Tensor:
        """m_∅ for every row, (B, K, D) float32: what is known before any token."""
        # Offloaded weights are there while a forward runs; else the hook that brings them is asked to.
        hook: Any = getattr(self, "_hf_hook", None) if self.initial_memory.is_meta else None
        if hook is not None:
            hook.pre_forward(self)
        memory = normalize_memory(self.initial_memory, self.config.rms_norm_eps)
        if hook is not None:
            hook.post_forward(self, None)
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
        refuse_unknown({"output_attentions": self.config.output_attentions, **kwargs}, RowKeywords)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds.")
        show = kwargs.get("output_hidden_states")
        show = self.config.output_hidden_states if show is None else show
        if show and inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        tokens: Any = input_ids if inputs_embeds is None else inputs_embeds
        batch, length = tokens.shape[:2]
        if length == 0:
            raise ValueError("the input has no tokens; give at least one, for instance the bos token.")
        use_cache = (self.config.use_cache or cache is not None) if use_cache is None else use_cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)

        layer = None if cache is None else memory_layer(cache)
        memory = self.memory_before(layer, batch)
        mask = token_mask(attention_mask, length)
        starts = document_starts(kwargs, mask, tokens.shape[:2])
        # Drafts are read out, so as many can be taken back, however many they are.
        drafts = logits_to_keep if isinstance(logits_to_keep, int) else 0
        recorded = max(HISTORY_BOUND, drafts) if layer is not None and layer.record_past else 0
        read = self._roll(memory, tokens, mask, starts, logits_to_keep, recorded, bool(show))
        if layer is not None:
            layer.write(read.memory, length, read.past)
        return ModelOutputWithState(
            last_hidden_state=read.hidden,
            hidden_states=None if read.layers is None else (inputs_embeds, *read.layers),
            **{STATE_NAME: cache if use_cache else None},
        )


class SMTForCausalLM(DecodingMixin, SMTPreTrainedModel, GenerationMixin):
    """`SMTModel` and a linear head. With labels, the loss is backpropagated through time."""

    _tied_weights_keys: Any = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

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
        aligned with the logits, and count instead of labels, as everywhere. −100 is ignored. Raises ValueError
        also for labels beside logits_to_keep.
        """
        refuse_unknown(cast(dict, kwargs), LossKeywords)
        if labels is not None and kwargs.get("shift_labels") is None:
            refuse_kept_beside_labels(logits_to_keep)
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
