"""SMTConfig: every number of the architecture, documented once."""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import GenerationConfig
from transformers.configuration_utils import PreTrainedConfig

from .library_names import STATE_NAMES

# Raised by one when older code would compute something else from a newer config.json.
CONFIG_VERSION = 1

AUTO_MAP = {
    "AutoConfig": "configuration_smt.SMTConfig",
    "AutoModel": "modeling_smt.SMTModel",
    "AutoModelForCausalLM": "modeling_smt.SMTForCausalLM",
}
# What `transformers` itself reads from the config of any model, beside its declared fields.
LIBRARY_FIELDS = {
    *(
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "experts_implementation",
        "gradient_checkpointing",
    ),
    *("model_type", "name_or_path", "num_labels", "output_attentions", "prefix", "processor_class"),
    *("quantization_config", "rope_theta", "tokenizer_class", "torch_dtype", "transformers_weights"),
}
# Fields of every `PreTrainedConfig` that ask for what this model does not do, and the values that do not.
ONLY_VALUES = {
    "chunk_size_feed_forward": (0,),
    "is_encoder_decoder": (False,),
    "output_attentions": (False, None),
}


class OwnFields(PreTrainedConfig):
    """What the configurations of model and teacher share: no field is taken that nothing reads."""

    what: ClassVar[str] = "a recurrent model"

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Raise a TypeError for the first name that is no field."""
        for name in names:
            if not self.is_known(name):
                cls = type(self)
                raise TypeError(
                    f"{cls.__name__} has no field {name!r}; it has {', '.join(sorted(own_fields(cls)))}."
                )

    def set_rotary_base(self, theta: float | None) -> None:
        """Take over `rope_theta`, the older way to give the base, and see that nothing else is asked for."""
        given = dict(self.rope_parameters or {})
        known = {"rope_type": "default", "rope_theta": 10000.0 if theta is None else theta}
        self.rope_parameters = {**known, **given}
        if self.rope_parameters["rope_type"] != "default" or self.rope_parameters.keys() != known.keys():
            raise ValueError(
                f"rope_parameters is {given}; the memory has few positions, so there is only the rope_type "
                f"'default' with a rope_theta."
            )
        if theta not in (None, self.rope_parameters["rope_theta"]):
            raise ValueError(f"rope_theta is {theta} but rope_parameters is {given}; give one of them.")
        check_positive("rope_theta", self.rope_parameters["rope_theta"])

    @classmethod
    def is_known(cls, name: str) -> bool:
        """Whether this model or `transformers` reads this field."""
        return name in {field.name for field in fields(cls)} | LIBRARY_FIELDS or name.startswith("_")

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As `PreTrainedConfig.from_dict`: what a file holds beside our fields is kept, whoever wrote it."""
        foreign = {k: kwargs.pop(k, value) for k, value in config_dict.items() if not cls.is_known(k)}
        known = {name: value for name, value in config_dict.items() if name not in foreign}
        loaded = super().from_dict(known, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        for name in foreign.keys() - GenerationConfig().to_dict().keys():
            setattr(config, name, foreign[name])
        return loaded

    def check_supported(self) -> None:
        """Raise a ValueError for a value that asks for what the model does not do."""
        for name, values in ONLY_VALUES.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"the config has {name}={getattr(self, name)!r}, which {self.what} does not do; use "
                    f"{values[0]!r}."
                )


@strict
class SMTConfig(OwnFields):
    r"""Configuration of a recurrent language model with a memory of fixed size.

    The memory `m_t` holds `num_memory_tokens` (K) vectors of width `hidden_size` (D), so the state of
    one sequence is 4·K·D bytes whatever its length.

    Args:
        vocab_size: Number of token ids.
        hidden_size: Width D of embeddings, memory tokens and readout.
        num_memory_tokens: Number K of memory tokens.
        cell: Name of the one-step update `f_θ`, a key of `cells.CELLS`.
        num_hidden_layers: Depth of the cell. `gru`, `lstm` and `elman` stack layers by sharing the
            memory tokens out equally between them.
        num_readout_layers: Depth of the Transformer that reads the memory out.
        num_attention_heads: Heads of every attention layer (transformer cell and readout).
        intermediate_size: Hidden width of the feed-forward blocks; 4·D when not given. The `mlp` cell
            is K times as wide, since it updates all memory tokens at once.
        rope_parameters: Rotary position embedding, `{"rope_type": "default", "rope_theta": ...}`.
        rms_norm_eps: Epsilon of every RMS normalisation, that of the memory included.
        initializer_range: Standard deviation of the embeddings. It is 1, not the usual 0.02, because
            tokens enter the cell beside memory tokens of RMS 1. Linear layers start at 1/√fan_in.
        bptt_truncation: In training mode, cut the gradient through time every so many tokens;
            `None` backpropagates through the whole sequence.
        use_cache: Return the memory as `cache`.
        tie_word_embeddings: Use the embeddings as the head too. Logits then start as wide as
            √D·`initializer_range`: give about 1/√D.
        config_version: What the other fields mean; a checkpoint of a newer version is refused.

    Labels and `problem_type` are for heads that others put on `SMTModel`. A config.json may hold fields of
    other tools, which are kept; `SMTConfig(...)` takes none, unless the cell is one of your own, which may
    read fields of its own.

    Raises:
        ValueError: for sizes that do not divide or are not positive, and for a newer config_version; the
            cells raise theirs when built, and the model for values that ask for what it does not do.
        TypeError: for a field that is not known.
    """

    model_type = "smt"
    keys_to_ignore_at_inference = list(STATE_NAMES)  # noqa: RUF012 - transformers reads a class list

    vocab_size: int = 258
    hidden_size: int = 128
    num_memory_tokens: int = 4
    cell: str = "gru"
    num_hidden_layers: int = 1
    num_readout_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    rope_parameters: dict | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 1.0
    bptt_truncation: int | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = False
    config_version: int = CONFIG_VERSION
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        from .cells import BUILT_IN_CELLS  # here, so that the command line reads settings without torch

        if self.cell in BUILT_IN_CELLS:  # a cell that somebody registers may have fields of its own
            self.refuse_unknown(kwargs)
        self.set_rotary_base(kwargs.pop("rope_theta", None))
        self.validate_architecture()  # as a plain ValueError; @strict wraps it in an error of its own
        super().__post_init__(**kwargs)
        # All three: saving names only the class that is saved, and then AutoModel could not load it.
        self.auto_map = dict(AUTO_MAP)

    @property
    def layer_types(self) -> list[str]:
        """What `transformers` builds the cache from: one layer carries the memory, the rest nothing."""
        return ["smt_memory"] + ["dummy"] * (self.num_hidden_layers - 1)

    def validate_layer_type(self):
        """`smt_memory` is registered by `state_cache`, so the library's closed list does not apply."""

    def validate_architecture(self):
        if self.config_version < 1:
            raise ValueError(f"config_version is {self.config_version}; it must be at least 1.")
        if self.config_version > CONFIG_VERSION:
            raise ValueError(
                f"config_version is {self.config_version}, this code reads up to {CONFIG_VERSION}; update it."
            )
        check_sizes(
            self,
            "vocab_size hidden_size num_memory_tokens num_hidden_layers num_readout_layers "
            "num_attention_heads intermediate_size",
        )
        if self.bptt_truncation is not None and self.bptt_truncation < 1:
            raise ValueError(
                f"bptt_truncation is {self.bptt_truncation}; it must be at least 1 token, or None."
            )


def own_fields(cls: type) -> set[str]:
    return {name for name in cls.__annotations__ if name != "model_type"}


def check_positive(name: str, value: Any) -> None:
    """Raise a ValueError unless the value is a finite number greater than 0: it would make all memories NaN."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a finite number greater than 0.")


def check_sizes(config: PreTrainedConfig, names: str) -> None:
    """Raise a ValueError unless the named sizes are positive and the heads divide the width evenly."""
    for name in ("rms_norm_eps", "initializer_range"):
        check_positive(name, getattr(config, name))
    for name in names.split():
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1.")
    if config.hidden_size % (2 * config.num_attention_heads):
        raise ValueError(
            f"hidden_size {config.hidden_size} does not divide into {config.num_attention_heads} attention "
            f"heads of even width (rotary embeddings need pairs); use a multiple of "
            f"{2 * config.num_attention_heads}."
        )
