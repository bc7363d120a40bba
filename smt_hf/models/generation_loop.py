"""The decoding loop of greedy search and sampling: what `generate` runs where nothing unusual is asked for.

The loop of `transformers` prepares the inputs of any model at every token, copies all ids to append one, and
waits for the device to learn that the length has not been reached. A model whose state is one tensor needs
none of that. Same tokens, same scores, same draws; everything unusual goes to the loop of `transformers`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from inspect import signature
from typing import Any, cast

import torch
from torch.nn.modules.module import _has_any_global_hook
from transformers.cache_utils import DynamicCache
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import MaxLengthCriteria, StoppingCriteriaList
from transformers.generation.utils import GenerateDecoderOnlyOutput

from .compiled_step import compiled_step
from .generation_state import OF_THE_LOOP, StateGenerationMixin
from .library_names import STATE_NAME, state_of
from .prepacked_linear import prepacked_weights
from .state_cache import MemoryLayer

# Prepacking the weights costs what it saves in about this many tokens, read or generated.
MIN_TOKENS_TO_PREPACK = 16
# What `generate` hands to a model that reads ids or embeddings; anything else is not known here.
KNOWN_INPUTS = {"attention_mask", STATE_NAME, "use_cache", "logits_to_keep", "inputs_embeds"}


def is_untouched(module: Any, methods: tuple[str, ...]) -> bool:
    """Nobody hooked, compiled or replaced what the loop would pass by."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module.__dict__.get("_compiled_call_impl"))
    return not any(hooks) and not any(method in module.__dict__ for method in methods)


class TokenBuffer:
    """Ids (B, T) that grow in place; memory doubles when it is full, so a token costs O(1)."""

    def __init__(self, ids: torch.Tensor):
        self.length = ids.shape[1]
        self.ids = ids.new_empty(ids.shape[0], max(64, 2 * self.length))
        self.ids[:, : self.length] = ids

    def append(self, tokens: torch.Tensor) -> None:
        if self.length == self.ids.shape[1]:
            self.ids = torch.cat([self.ids, torch.empty_like(self.ids)], dim=1)
        self.ids[:, self.length] = tokens
        self.length += 1

    def read(self) -> torch.Tensor:
        """All ids so far, contiguous: for one row, a view."""
        return self.ids[:, : self.length].contiguous()


def as_function(processors: LogitsProcessorList) -> Callable[..., torch.Tensor]:
    """The list's own call looks at every signature at every token; where all are plain, once will do."""
    if type(processors) is not LogitsProcessorList or any(
        len(signature(p).parameters) != 2 for p in processors
    ):
        return processors

    def process(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for processor in processors:
            scores = processor(ids, scores)
        return scores

    return process


def without_max_length(criteria: StoppingCriteriaList) -> tuple[StoppingCriteriaList, float]:
    """(what has to be computed at every token, the length that needs only to be counted)."""
    lengths = [c for c in criteria if type(c) is MaxLengthCriteria and c.max_position_embeddings is None]
    if type(criteria) is not StoppingCriteriaList or not lengths:
        return criteria, float("inf")
    rest = StoppingCriteriaList(c for c in criteria if c not in lengths)
    return rest, min(c.max_length for c in lengths)


class DecodingMixin(StateGenerationMixin):
    """`_sample` of `SMTForCausalLM`, which is what greedy search and sampling of `generate` call."""

    def _step(self, memory: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """memory (B, K, D), tokens (B,) → the next memory (B, K, D) and its logits (B, V)."""
        model: Any = self
        core = model.model
        inputs = core.cell.project_inputs(core.embed_tokens(tokens[:, None]))
        memory = core.cell(memory, inputs[:, 0])
        return memory, model.lm_head(core.read_out(memory))

    def _is_plain(self, generation_config: Any, synced_gpus: bool, model_kwargs: dict) -> bool:
        """Whether `_decode` does all that is asked for."""
        model: Any = self
        state = state_of(model_kwargs)
        layer: Any = state.layers[0] if state is not None and state.layers else None
        return (
            not synced_gpus
            and not generation_config.is_assistant
            and not generation_config.output_attentions
            and not generation_config.output_hidden_states
            and generation_config.use_cache
            and model_kwargs.keys() <= KNOWN_INPUTS | OF_THE_LOOP
            # Not asked for its class: of two checkpoints with code, the one loaded last makes all states.
            and hasattr(layer, "memory")
            and not layer.record_past
            and (
                (type(state) is DynamicCache and model.device.type == "cpu")  # compiled here, if at all
                or not model._valid_auto_compile_criteria(model_kwargs, generation_config)
            )
            and not hasattr(model, "hf_device_map")
            and type(model).forward is type(model)._forward_of_step
            and not _has_any_global_hook()
            and is_untouched(model, ("forward", "prepare_inputs_for_generation"))
            and is_untouched(model.model, ("forward", "_roll", "_run"))
        )

    def _sample(
        self,
        input_ids: Any,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: Any,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        if not self._is_plain(generation_config, synced_gpus, model_kwargs):
            return super()._sample(  # type: ignore[misc]  # self is a protocol there
                input_ids, logits_processor, stopping_criteria, generation_config, synced_gpus, streamer,
                **model_kwargs,
            )  # fmt: skip
        model: Any = self
        step = None
        if (
            generation_config.compile_config is not None
            and not generation_config.disable_compile
            and type(state_of(model_kwargs)) is DynamicCache
            and model.device.type == "cpu"
        ):
            tokens = input_ids.new_zeros(len(input_ids))
            memory = model.model.start_memory(len(input_ids)).contiguous()
            step = compiled_step(model, DecodingMixin._step, generation_config.compile_config, memory, tokens)
        with ExitStack() as stack:
            if generation_config.max_length >= MIN_TOKENS_TO_PREPACK:
                stack.enter_context(prepacked_weights(model))
            outputs = model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration=True)
            if step is not None:
                stack.close()  # the program has laid out the weights in its own way
            return self._decode(
                outputs, step or DecodingMixin._step, input_ids, logits_processor, stopping_criteria,
                generation_config, streamer,
            )  # fmt: skip

    def _decode(
        self, outputs, step, input_ids, logits_processor, stopping_criteria, generation_config, streamer
    ):
        """From the outputs of the prompt to the answer of `generate`."""
        state = state_of(outputs)
        layer = cast(MemoryLayer, state.layers[0])
        # In strides of its own: those of a prompt would be another program.
        memory = cast(torch.Tensor, layer.memory).clone(memory_format=torch.contiguous_format)
        logits = outputs.logits[:, -1]
        del outputs

        process = as_function(logits_processor)
        criteria, max_length = without_max_length(stopping_criteria)
        pads_finished_rows = any(hasattr(criterion, "eos_token_id") for criterion in criteria)
        if pads_finished_rows:
            padding = generation_config._pad_token_tensor.to(input_ids.device)
        detailed = generation_config.return_dict_in_generate
        scores: Any = () if detailed and generation_config.output_scores else None
        raw_logits: Any = () if detailed and generation_config.output_logits else None
        unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        buffer, steps = TokenBuffer(input_ids), 0
        try:
            while True:
                token_logits = logits.to(dtype=torch.float32, device=input_ids.device)
                token_scores = process(buffer.read(), token_logits) if logits_processor else token_logits
                if scores is not None:
                    scores += (token_scores,)
                if raw_logits is not None:
                    raw_logits += (token_logits,)
                if generation_config.do_sample:
                    tokens = torch.multinomial(token_scores.softmax(-1), num_samples=1).squeeze(1)
                else:
                    tokens = token_scores.argmax(-1)
                if pads_finished_rows:
                    tokens = torch.where(unfinished, tokens, padding)
                buffer.append(tokens)
                if criteria:
                    unfinished = unfinished & ~criteria(buffer.read(), scores)
                if streamer is not None:
                    streamer.put(tokens.cpu())
                if buffer.length >= max_length or (criteria and not unfinished.any()):
                    break
                memory, logits = step(self, memory, tokens.to(memory.device))
                steps += 1
        finally:  # a run that a streamer or the user breaks off leaves the state where it has come to
            if steps:
                layer.write(memory, steps)
        if streamer is not None:
            streamer.end()
        ids: Any = buffer.read().clone()
        if not detailed:
            return ids
        return GenerateDecoderOnlyOutput(sequences=ids, scores=scores, logits=raw_logits, **{STATE_NAME: state})
