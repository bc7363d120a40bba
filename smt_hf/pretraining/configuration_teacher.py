"""SMTTeacherConfig: every number of the teacher, documented once."""

from huggingface_hub.dataclasses import strict

from smt_hf.models.configuration_smt import OwnFields, check_sizes
from smt_hf.runs.arguments import ENCODER_TYPES


@strict
class SMTTeacherConfig(OwnFields):
    r"""Configuration of the teacher; fields not listed mean what they mean in `SMTConfig`.

    Args:
        num_hidden_layers: Depth of the encoder E_φ.
        encoder_type: `"causal"`: one causal pass over the context, which register groups at any chosen
            timesteps read through a mask. `"projected"`: the same pass, a linear map of whose hidden states
            is the label of their timestep. `"bidirectional"`: the paper's encoder, one pass per label over the
            last `context_length` tokens. `"given"`: as projected, of the hidden states of a frozen causal
            language model of `transformers`, see `SMTTeacher.from_causal_lm`.
        base_model_name_or_path: The given model. It is not saved with the teacher.
        trunk_size: Numbers of all its hidden states of one token.
        context_length: Most tokens a label can sum up (T_c).
        future_length: Targets that a label must predict (F).

    Raises as `SMTConfig` does.
    """

    model_type = "smt_teacher"
    what = "a teacher"

    vocab_size: int = 258
    hidden_size: int = 128
    num_memory_tokens: int = 4
    num_hidden_layers: int = 4
    num_readout_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    rope_parameters: dict | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 1.0
    encoder_type: str = "causal"
    context_length: int = 128
    future_length: int = 32
    base_model_name_or_path: str | None = None
    trunk_size: int | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        self.refuse_unknown(kwargs)
        self.set_rotary_base(kwargs.pop("rope_theta", None))
        self.validate_architecture()  # as a plain ValueError; @strict wraps it in an error of its own
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        check_sizes(
            self,
            "vocab_size hidden_size num_memory_tokens num_hidden_layers num_readout_layers "
            "num_attention_heads intermediate_size context_length future_length",
        )
        if self.encoder_type not in ENCODER_TYPES:
            raise ValueError(
                f"encoder_type is {self.encoder_type!r}; it must be one of {', '.join(ENCODER_TYPES)}."
            )
        of_a_given_model = (self.base_model_name_or_path, self.trunk_size)
        if any((value is not None) != (self.encoder_type == "given") for value in of_a_given_model):
            raise ValueError(
                f"encoder_type is {self.encoder_type!r}, base_model_name_or_path is "
                f"{self.base_model_name_or_path!r} and trunk_size is {self.trunk_size}; give both to 'given' "
                f"alone, as SMTTeacher.from_causal_lm does."
            )
