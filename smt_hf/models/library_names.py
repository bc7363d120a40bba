"""What the model relies on in `transformers`, checked once, when this module is imported.

From 5.24 on the library calls the state of a model `cache`; before, `past_key_values`. We say `cache` with
every version, and take the old name too.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, TypeVar, cast

import transformers
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

TESTED_TRANSFORMERS = ("5.23", "5.24")

# Where a name lives → names that this code calls, overrides or writes to and that no release has to keep.
RELIED_ON: dict[str, tuple[str, ...]] = {
    "cache_utils": ("CacheLayerMixin", "DYNAMIC_LAYER_TYPE_MAPPING", "STATIC_LAYER_TYPE_MAPPING"),
    "generation.utils:GenerationMixin": (
        *("_get_candidate_generator", "_prefill", "_sample", "_update_model_kwargs_for_generation"),
        *("_valid_auto_compile_criteria", "prepare_inputs_for_generation"),
    ),
    "generation.utils": ("GenerateDecoderOnlyOutput",),
    "masking_utils": ("create_masks_for_generate",),  # a model's own method of this name comes first
    "modeling_layers": ("GradientCheckpointingLayer",),
    "modeling_utils:PreTrainedModel": (
        *("_can_compile_fullgraph", "_init_weights", "_is_stateful", "_skip_keys_device_placement"),
        *("_supports_context_parallel", "_tied_weights_keys", "loss_function"),
    ),
    "models.auto.modeling_auto": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    "utils": ("can_return_tuple",),
}

STATE_NAMES = ("cache", "past_key_values")
# The one that this version of `transformers` uses, for the outputs of `forward` and the inputs of the next.
STATE_NAME = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else STATE_NAMES[1]


def find(place: str) -> Any:
    """The object at "module:Class" or "module", below `transformers`."""
    module, _, name = place.partition(":")
    found = import_module(f"transformers.{module}")
    return getattr(found, name) if name else found


def missing_names() -> list[str]:
    """What of `RELIED_ON` this version of `transformers` lacks."""
    missing = []
    for place, names in RELIED_ON.items():
        try:
            owner = find(place)
        except AttributeError:
            missing.append(place)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("transformers"):
                raise  # the library is there, and what it needs is not
            missing.append(place)
        else:
            missing += [f"{place}.{name}" for name in names if not hasattr(owner, name)]
    if not missing:
        prepare = find("generation.utils:GenerationMixin").prepare_inputs_for_generation
        if STATE_NAME not in inspect.signature(prepare).parameters:
            missing.append(f"the state as {STATE_NAME} in generate")
    return missing


def check_library(missing: list[str]) -> None:
    """Raise ImportError where the model would not run, or would run wrongly."""
    if missing:
        raise ImportError(
            f"transformers {transformers.__version__} lacks {', '.join(missing)}, which the code of this SMT "
            f"model needs; install version {' or '.join(TESTED_TRANSFORMERS)}, which it was tested with, or "
            f"update smt-hf and the code in the checkpoint (smt-hf push --code-only)."
        )


check_library(missing_names())

Method = TypeVar("Method", bound=Callable)


def takes_state(method: Method) -> Method:
    """Let a method that takes `cache` take it as `past_key_values` too.

    Raises ValueError where both are given.
    """

    @functools.wraps(method)
    def renamed(self, *args, **kwargs):
        if "past_key_values" in kwargs:
            state = kwargs.pop("past_key_values")
            if state is not None and kwargs.get("cache") not in (None, state):
                refuse_keys_and_values(state)
                raise ValueError("cache and past_key_values are two names of one argument; give cache alone.")
            if state is not None:
                kwargs["cache"] = state
        return method(self, *args, **kwargs)

    return cast(Method, renamed)


def refuse_keys_and_values(cache: Any) -> None:
    """Raise ValueError for the cache of another kind of model, such as keys and values of a tuned prefix."""
    layers = getattr(cache, "layers", None) or [cache]
    # Not asked for its class: of two checkpoints with code, the one loaded last makes all states.
    if not hasattr(layers[0], "memory"):
        raise ValueError(
            f"the cache is a {type(cache).__name__} without a memory, but the state of a recurrent model is a "
            f"memory, with no keys and values that a prefix could add to; make it with "
            f"DynamicCache(config=model.config), and tune a prompt by its embeddings (in peft, prompt tuning)."
        )


def as_declared(original: Callable) -> Callable[[Method], Method]:
    """Give an overriding method the signature and the help of the one it overrides."""
    return cast(Callable[[Method], Method], functools.wraps(original))


def state_of(outputs: Any) -> Any:
    """The state in the outputs of `forward`, or in the arguments that `generate` keeps for it; None if none."""
    return outputs.get(STATE_NAME)


class AnswersToCache:
    """Before 5.24: an output whose state answers to its new name as well."""

    past_key_values: Any

    @property
    def cache(self) -> Any:
        return self.past_key_values

    def __getitem__(self, key):
        return super().__getitem__("past_key_values" if key == "cache" else key)  # type: ignore[misc]


# What `forward` of the two classes returns; give them the state as STATE_NAME.
ModelOutputWithState: Any = BaseModelOutputWithPast
LMOutputWithState: Any = CausalLMOutputWithPast
if STATE_NAME != "cache":

    @dataclass
    class OlderModelOutput(AnswersToCache, BaseModelOutputWithPast):  # type: ignore[override]
        pass

    @dataclass
    class OlderLMOutput(AnswersToCache, CausalLMOutputWithPast):  # type: ignore[override]
        pass

    ModelOutputWithState, LMOutputWithState = OlderModelOutput, OlderLMOutput
