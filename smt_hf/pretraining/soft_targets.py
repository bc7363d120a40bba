"""Soft targets: what a given causal language model of `transformers` says of the next token.

The model is read and never trained. Its distribution takes a share of the readout's loss (`teacher_weight`),
and its hidden states may become labels (`encoder_type` given).
"""

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from smt_hf.data.tokenizer import load_tokenizer, place_of, tokenizer_fingerprint

States = tuple[torch.Tensor, ...]
KINDS = "give a causal language model, such as a GPT-2, Llama or Mamba"


class SoftTargets:
    """log p(y_t | x_0 … x_t) by a frozen model, for rows as they are trained on: from their first token.

    model: any causal language model of `transformers`. vocab_size V: of the student, by default the model's;
    teachers pad their own to round numbers, and what they say of padding is lost. name: as errors name it.
    """

    def __init__(self, model: Any, vocab_size: int | None = None, name: str = "the given teacher"):
        if getattr(model, "get_output_embeddings", lambda: None)() is None:
            raise ValueError(f"{name} is {type(model).__name__}, which predicts no tokens; {KINDS}.")
        self.model, self.name = model.eval().requires_grad_(False), name
        self.vocab_size: int = vocab_size or model.config.get_text_config().vocab_size

    @classmethod
    def load(cls, name: str, vocab_size: int | None = None, half: bool | None = None) -> "SoftTargets":
        """name: a folder, a name on the Hub, or "example", the model of the package; half: bfloat16, by default
        where there is an accelerator.

        Raises ValueError, in one sentence, for what is no causal language model, is not to be had, or needs
        code of its own.
        """
        from transformers import AutoModelForCausalLM

        check_kind(name)
        half = torch.accelerator.is_available() if half is None else half
        dtype = torch.bfloat16 if half else torch.float32
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place_of(name),
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            model, info = loaded
        except Exception as error:  # `transformers` and the Hub raise many kinds
            raise ValueError(f"teacher {name!r} {why_not(name, error)}") from error
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"teacher {name!r} has no weights for {', '.join(missing[:4])}; give a whole model."
            )
        return cls(model, vocab_size, f"teacher {name!r}")

    def check(self, row: torch.Tensor) -> None:
        """Raise a ValueError unless the model can teach on rows like this one, (T,).

        It must read as many tokens, speak of all ids, in finite numbers, and know nothing of what comes later.
        """
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
        half = len(row) // 2
        other = torch.cat([row[:half], (row[half:] + 1) % self.vocab_size])
        said, changed = self(torch.stack([row, other]))
        if not said.isfinite().all():
            raise ValueError(f"{self.name} answers with numbers that are not finite; give another one.")
        moved = (said - changed).abs()
        # A masked language model loads as a causal one, and one with small weights looks ahead a little.
        # Rounding moves an answer, too.
        least = min(0.05, 1000 * torch.finfo(self.model.dtype).eps)
        if half and moved[:half].max() > least * moved[half:].max():
            raise ValueError(f"{self.name} sees the tokens that it is to predict; {KINDS}.")

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the configuration and the weights, and not with the precision they are loaded in."""
        config = self.model.config.to_diff_dict()
        config = {name: config[name] for name in config if name not in ("dtype", "transformers_version")}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            half = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(half.flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        """input_ids (B, T) → log-probabilities (B, T, V) float32."""
        return self._spoken(self._read(input_ids).logits)

    def with_states(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, States]:
        """As a call, and the hidden states of the same pass."""
        read = self._read(input_ids, output_hidden_states=True)
        return self._spoken(read.logits), read.hidden_states

    def states(self, input_ids: torch.Tensor) -> States:
        """input_ids (B, T) → hidden states, of the embeddings and after each layer, (B, T, W) each."""
        return self._read(input_ids, output_hidden_states=True).hidden_states

    @torch.compiler.disable
    @torch.no_grad()
    def _read(self, input_ids: torch.Tensor, **options: Any) -> Any:
        if self.model.device != input_ids.device:
            self.model.to(input_ids.device)
        return self.model(input_ids=input_ids, use_cache=False, **options)

    def trunk_size(self) -> int:
        """Numbers of all hidden states of one token."""
        one = torch.zeros(1, 1, dtype=torch.long, device=self.model.device)
        return sum(state.shape[-1] for state in self.states(one))

    def _spoken(self, logits: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(logits[..., : self.vocab_size].float(), dim=-1)


def check_kind(name: str) -> None:
    """Raise ValueError where a teacher has no configuration, or that of no causal language model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(place_of(name), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"teacher {name!r} {why_not(name, error)}") from error
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(f"teacher {name!r} is of type {kind!r}, which is no causal language model; {KINDS}.")


def own_tokenizer(teacher: str, asked: str | None) -> Any:
    """The tokenizer of a given teacher. Raises ValueError where it has none, or another one was asked for."""
    check_kind(teacher)
    try:
        folder = Path(place_of(teacher))
        tokenizer = load_tokenizer(str(folder.resolve()) if folder.exists() else teacher)
    except ValueError as error:
        raise ValueError(
            f"teacher {teacher!r} has no tokenizer that loads; give a model that was saved with its own."
        ) from error
    if asked is not None and tokenizer_fingerprint(load_tokenizer(asked)) != tokenizer_fingerprint(tokenizer):
        raise ValueError(
            f"tokenizer is {asked!r}, and teacher {teacher!r} has another one; leave tokenizer out to use the "
            f"teacher's."
        )
    return tokenizer


def why_not(name: str, error: BaseException) -> str:
    """Why a teacher of this name did not load, and what would be right: what follows its name in a sentence."""
    from huggingface_hub import errors

    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__

    def raised(*kinds: type[Exception]) -> bool:
        return any(isinstance(one, kinds) for one in causes)

    place = Path(name)
    if place.is_file():
        return "is a file; give the folder that it is in."
    if "`model_type` key" in str(error):
        return "has no config.json that names a type; give a model that save_pretrained wrote."
    if known := re.search(r"model type `(\w+)`.*does not recognize", str(error), re.DOTALL):
        return f"is of type {known[1]!r}, which transformers does not know; {KINDS}."
    if "trust_remote_code" in str(error):
        return f"needs code of its own, which is not run; {KINDS}."
    if raised(errors.GatedRepoError):  # a kind of RepositoryNotFoundError
        return "is gated on the Hub; ask for access on its page, and log in with hf auth login."
    if raised(errors.RepositoryNotFoundError, errors.HFValidationError):
        return f"is neither a folder nor a repository of the Hub that you may read; {KINDS}."
    if raised(errors.LocalEntryNotFoundError):
        return "is no folder and was not downloaded before, and the Hub does not answer; give a folder."
    if "file named" in str(error):
        return "has no weights in the format safetensors; give a whole model that save_pretrained wrote."
    return f"cannot be loaded: {because(error)}"


def because(error: BaseException) -> str:
    """An error of another library on one line, which is not a long one."""
    said = " ".join(str(error).split())
    return said if len(said) < 300 else said[:300] + " …"
