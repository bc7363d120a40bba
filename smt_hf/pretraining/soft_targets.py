"""Soft targets: what a given causal language model of `transformers` says of the next token.

The model is read and never trained. Its distribution takes a share of the readout's loss (`teacher_weight`).
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from smt_hf.data.tokenizer import load_tokenizer, tokenizer_fingerprint


class SoftTargets:
    """log p(y_t | x_0 … x_t) by a frozen model, for rows as they are trained on: from their first token.

    model: any causal language model of `transformers`. vocab_size V: of the student; teachers pad their own to
    round numbers, and what they say of padding is lost. name: as errors name it.
    """

    def __init__(self, model: Any, vocab_size: int, name: str = "the given teacher"):
        self.model, self.vocab_size, self.name = model.eval().requires_grad_(False), vocab_size, name

    @classmethod
    def load(cls, name: str, vocab_size: int, half: bool | None = None) -> "SoftTargets":
        """half: bfloat16, by default where there is an accelerator.

        Raises ValueError, in one sentence, for what is no causal language model, is not to be had, or needs
        code of its own.
        """
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        try:
            config = AutoConfig.from_pretrained(name)
        except Exception as error:  # `transformers` and the Hub raise many kinds
            raise ValueError(f"teacher {name!r} cannot be loaded: {because(error)}") from error
        kind = config.model_type
        if getattr(config, "is_encoder_decoder", False) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ValueError(
                f"teacher {name!r} is of type {kind!r}, which is no causal language model; give one such as "
                f"GPT-2, Llama or Mamba."
            )
        half = torch.accelerator.is_available() if half is None else half
        dtype = torch.bfloat16 if half else torch.float32
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
            model, info = loaded
        except Exception as error:
            raise ValueError(f"teacher {name!r} cannot be loaded: {because(error)}") from error
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"teacher {name!r} has no weights for {', '.join(missing[:4])}; give a whole model."
            )
        return cls(model, vocab_size, f"teacher {name!r}")

    def check(self, row: torch.Tensor) -> None:
        """Raise a ValueError unless the model reads rows as long as this one, (T,), and speaks of all ids."""
        config = self.model.config.get_text_config()
        longest = getattr(config, "max_position_embeddings", None)
        if longest and len(row) > longest:
            raise ValueError(
                f"{self.name} reads {longest} tokens, and sequence_length is {len(row)}; use at most {longest}."
            )
        if config.vocab_size < self.vocab_size:
            raise ValueError(
                f"{self.name} knows {config.vocab_size} token ids, and the model has {self.vocab_size}; train "
                f"with the teacher's own tokenizer."
            )
        if not self(row[None]).isfinite().all():
            raise ValueError(f"{self.name} answers with numbers that are not finite; give another one.")

    def fingerprint(self) -> str:
        """Changes with the configuration and the weights."""
        digest = hashlib.sha256(self.model.config.to_json_string().encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.compiler.disable
    @torch.no_grad()
    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        """input_ids (B, T) → log-probabilities (B, T, V) float32."""
        if self.model.device != input_ids.device:
            self.model.to(input_ids.device)
        logits = self.model(input_ids=input_ids, use_cache=False).logits
        return F.log_softmax(logits[..., : self.vocab_size].float(), dim=-1)


def own_tokenizer(teacher: str, asked: str | None) -> Any:
    """The tokenizer of a given teacher. Raises ValueError where another one was asked for."""
    tokenizer = load_tokenizer(str(Path(teacher).resolve()) if Path(teacher).exists() else teacher)
    if asked is not None and tokenizer_fingerprint(load_tokenizer(asked)) != tokenizer_fingerprint(tokenizer):
        raise ValueError(
            f"tokenizer is {asked!r}, and teacher {teacher!r} has another one; leave tokenizer out to use the "
            f"teacher's."
        )
    return tokenizer


def because(error: Exception) -> str:
    """An error of another library on one line, which is not a long one."""
    said = " ".join(str(error).split())
    return said if len(said) < 300 else said[:300] + " …"
