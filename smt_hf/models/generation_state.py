"""How `generate` carries the state from one forward to the next, and how a state that is lost is noticed."""

from typing import Any
from weakref import WeakSet

import transformers
from transformers.generation import GenerationMixin

from .library_names import STATE_NAME, STATE_NAMES, TESTED_TRANSFORMERS, as_declared, state_of, takes_state

# What `generate` hands to its loops among the model's arguments, and the model has no use for.
OF_THE_LOOP = {"tokenizer", "assistant_tokenizer"}
# Layers whose count, a tensor, was read once: reading it at every token would wait for the device.
checked_layers: WeakSet[Any] = WeakSet()


def tokens_read_twice(given: int, generation_config, model_kwargs: dict) -> int:
    """How many tokens a state has read, if `generate` takes the `given` tokens for the whole text; else 0.

    It tells a whole text from new tokens by the width of the mask alone.
    """
    state, mask = state_of(model_kwargs), model_kwargs.get("attention_mask")
    # A mask of ones alone has been dropped by now, and its width noted.
    width = getattr(generation_config, "_mask_length", None) if mask is None else mask.shape[1]
    return int(state.get_seq_length()) if state is not None and width == given else 0


def check_carried(state: Any, tokens: int) -> None:
    """Raise RuntimeError unless the state has read `tokens` tokens: the model would go on from m_∅."""
    read = 0 if state is None else int(state.get_seq_length())
    if read < tokens:
        raise RuntimeError(
            f"the state has read {read} of {tokens} token(s), so the text would go on from nothing: "
            f"transformers {transformers.__version__} does not hand {STATE_NAME} on; use version "
            f"{' or '.join(TESTED_TRANSFORMERS)}, or update smt-hf."
        )


class StateGenerationMixin(GenerationMixin):
    """`GenerationMixin` for a model whose state is one memory."""

    @as_declared(GenerationMixin.generate)
    @takes_state
    def generate(self, *args: Any, cache: Any = None, **kwargs: Any) -> Any:
        if cache is not None:
            kwargs[STATE_NAME] = cache
        outputs = super().generate(*args, **kwargs)
        if STATE_NAMES[0] != STATE_NAME and hasattr(outputs, STATE_NAME):
            outputs.cache = getattr(outputs, STATE_NAME)
        return outputs

    @staticmethod
    def create_masks_for_generate(inputs_embeds, attention_mask=None, is_first_iteration=False, **kwargs):
        """What `generate` passes on of its mask: the columns of the tokens at hand, (B, T).

        None for a token that was just generated, which is never padding: a mask that grows would make
        `torch.compile` start again at every token.
        """
        length = inputs_embeds.shape[1]
        if attention_mask is None or (length == 1 and not is_first_iteration):
            return None
        return attention_mask[:, -length:].contiguous()

    @as_declared(GenerationMixin.prepare_inputs_for_generation)
    def prepare_inputs_for_generation(self, input_ids, *args: Any, **kwargs: Any) -> Any:
        kwargs = {name: value for name, value in kwargs.items() if name not in OF_THE_LOOP}
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if kwargs.get("use_cache") and not kwargs.get("is_first_iteration"):
            state, mask = state_of(inputs), kwargs.get("attention_mask")
            layer = state.layers[0] if state is not None and state.layers else None
            if isinstance(getattr(layer, "num_tokens", 0), int) or layer not in checked_layers:
                width = input_ids.shape[1] if mask is None else mask.shape[-1]
                new = inputs.get("input_ids", inputs.get("inputs_embeds"))
                check_carried(state, width - new.shape[1])
                if layer is not None and width > new.shape[1]:
                    checked_layers.add(layer)
        if "prepare_inputs_for_generation" in self.__dict__:
            # peft took this method's place; by the older name it learns that the prompt has been read.
            inputs[STATE_NAMES[1]] = state_of(inputs)
        return inputs

    def _prefill(self, input_ids, generation_config, model_kwargs, *args, **kwargs):
        embeds = model_kwargs.get("inputs_embeds")
        given = input_ids.shape[1] if embeds is None else embeds.shape[1]
        seen = tokens_read_twice(given, generation_config, model_kwargs)
        # Fewer than the state has read: `generate` would cut them all off the front, or wrong ones.
        if seen > 0 and given <= seen:
            raise ValueError(
                f"the state has read {seen} token(s), the input has {given}; pass the whole text, or only its "
                f"{given} new token(s) with an attention_mask of {seen + given} columns."
            )
        state = state_of(model_kwargs)
        if state is not None and not model_kwargs.get("use_cache"):
            # Every step would read all new tokens again, on top of what the state has read of them.
            raise ValueError("use_cache is False, and a state was given; leave one of them out.")
        before = 0 if state is None else int(state.get_seq_length())
        outputs = super()._prefill(input_ids, generation_config, model_kwargs, *args, **kwargs)  # type: ignore[misc]
        if model_kwargs.get("use_cache"):
            check_carried(state_of(outputs), before + given - seen)
        return outputs

    def _get_candidate_generator(
        self, generation_config, input_ids, inputs_tensor, logits_processor, model_kwargs, *args, **kwargs
    ):
        given = input_ids.shape[1]
        if seen := tokens_read_twice(given, generation_config, model_kwargs):
            # Assisted decoding cuts nothing off the front: it would read the whole text once more.
            raise ValueError(
                f"the state has read {seen} token(s), the input has {given}; assisted decoding goes on from a "
                f"state with the new tokens alone and an attention_mask of {seen} more columns than these."
            )
        return super()._get_candidate_generator(  # type: ignore[misc]
            generation_config, input_ids, inputs_tensor, logits_processor, model_kwargs, *args, **kwargs
        )
