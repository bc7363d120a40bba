"""SMTTeacher: says what to remember. Used in training only, saved beside the model, never inside it.

B rows, T tokens, n labels per row, K memory tokens of width D, F future targets, V token ids.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from smt_hf.models.layers import (
    Block,
    RotaryTable,
    attend_all,
    attend_causal,
    init_weights,
    normalize_memory,
)
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.models.readout import Readout
from smt_hf.runs.arguments import WITH_TRUNK

from .configuration_teacher import SMTTeacherConfig
from .soft_targets import SoftTargets, States

# Width of the trunk's convolution, in tokens. Attention must find neighbours before it can learn from them; a
# convolution sees them from the first step (studies/LOG.md).
CONVOLUTION_WIDTH = 4


class SMTTeacher(PreTrainedModel):
    """Encoder m_t = E_φ(x_0 … x_t) and decoder p(y_τ | m_t, x_{t+1} … x_τ), τ = t … t+F−1.

    The encoder appends K learned register tokens per label to the context. The memory is the RMS-normalised
    output at their places; for the empty context (timestep −1) it is m_∅.
    Source: Kumar & Isola 2026. Deviations of the causal encoder: many labels share one trunk; a short
    convolution runs over its embeddings; registers start from the last token; the trunk predicts the next
    token too (see `smt_loss`). The projected encoder has the trunk alone: a label costs one linear map, and
    cannot look anything up.
    """

    config_class = SMTTeacherConfig
    config: SMTTeacherConfig
    base_model_prefix = "teacher"

    def __init__(self, config: SMTTeacherConfig):
        config.check_supported()
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.registers = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        self.rotary = RotaryTable(config, config.context_length + config.num_memory_tokens)
        width, depth = config.hidden_size, config.num_hidden_layers
        if config.encoder_type in WITH_TRUNK:
            self.convolution = nn.Conv1d(width, width, CONVOLUTION_WIDTH, groups=width, bias=False)
        if config.encoder_type in ("projected", "given"):
            size = config.trunk_size or (depth + 1) * width  # the embeddings are the first state
            self.projection = nn.Linear(size, config.num_memory_tokens * width, bias=False)
        self.given: SoftTargets | None = None  # no module of this one: neither trained nor saved
        self.encoder = nn.ModuleList(
            Block(config) for _ in range(0 if config.encoder_type == "given" else depth)
        )
        self.readout = Readout(config, max_future=config.future_length)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        init_weights(module, self.config.initializer_range)
        if isinstance(module, SMTTeacher):
            init.normal_(module.registers)
        elif isinstance(module, nn.Conv1d):
            init.normal_(module.weight, std=CONVOLUTION_WIDTH**-0.5)

    @classmethod
    def from_causal_lm(cls, model: PreTrainedModel | SoftTargets | str | Path, **config: Any) -> "SMTTeacher":
        """A teacher whose labels are a linear map of a given model's hidden states. It freezes the model.

        model: a causal language model, what it was wrapped into, or its name or folder. config: fields of
        `SMTTeacherConfig`, with the model's own vocabulary by default. Raises as `SoftTargets.load` does, and
        ValueError for a model without a head, or for another `encoder_type`.
        """
        if config.setdefault("encoder_type", "given") != "given":
            raise ValueError(
                f"encoder_type is {config['encoder_type']!r}; of a given model it must be 'given'."
            )
        if isinstance(model, str | Path):
            model = SoftTargets.load(str(model), config.get("vocab_size"))
        given = model if isinstance(model, SoftTargets) else SoftTargets(model, config.get("vocab_size"))
        name = given.model.name_or_path
        known = {
            "base_model_name_or_path": str(Path(name).resolve()) if name and Path(name).is_dir() else name,
            "vocab_size": given.vocab_size,
            "trunk_size": given.trunk_size(),
        }
        teacher = cls(SMTTeacherConfig(**{**known, **config}))
        teacher.given = given
        return teacher

    def given_model(self) -> SoftTargets:
        """The given model, which is loaded by its name where this teacher was.

        Raises as `SoftTargets.load` does, and ValueError for one that has no name, or other sizes.
        """
        if self.given is None:
            name = self.config.base_model_name_or_path
            if not name:
                raise ValueError(
                    "the model that this teacher was given had no folder; give it anew: teacher.given = "
                    "SoftTargets(model)."
                )
            self.given = SoftTargets.load(name, self.config.vocab_size)
        if (size := self.given.trunk_size()) != self.config.trunk_size:
            raise ValueError(
                f"{self.given.name} has states of {size} numbers, and this teacher maps "
                f"{self.config.trunk_size}; give the model that it was made with."
            )
        return self.given

    def encode(
        self, input_ids: torch.Tensor, timesteps: Sequence[int], states: States | None = None
    ) -> torch.Tensor:
        """Memory labels m_t for t in `timesteps`, each in −1 … T−1: (B, T) → (B, n, K, D) float32.

        m_t depends on x_0 … x_t only. states: what the given model made of the sequence, if it has read it.
        Raises ValueError for a timestep outside the sequence, or (but for the bidirectional encoder) past
        `context_length`.
        """
        return self.encode_with_trunk(input_ids, timesteps, states, trunk=False)[0]

    def encode_with_trunk(
        self,
        input_ids: torch.Tensor,
        timesteps: Sequence[int],
        states: States | None = None,
        trunk: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `encode`, and the trunk's hidden states (B, T', D), None where there is none that learns.

        T' is max(timesteps)+1; of the projected encoder, as much of the sequence as it can read.
        """
        if not timesteps or min(timesteps) < -1 or max(timesteps) >= input_ids.shape[1]:
            raise ValueError(f"timesteps {list(timesteps)} must lie in -1 … {input_ids.shape[1] - 1}.")
        if self.config.encoder_type == "bidirectional":
            window = self.config.context_length
            memories = [self._encode_window(input_ids[:, max(0, t + 1 - window) : t + 1]) for t in timesteps]
            return torch.stack(memories, dim=1), None
        if max(timesteps) >= self.config.context_length:
            raise ValueError(
                f"timestep {max(timesteps)} is past the teacher's context_length {self.config.context_length}."
            )
        if self.config.encoder_type != "causal":
            trunk = trunk and self.config.encoder_type == "projected"
            if not states and max(timesteps) >= 0:
                # All that there is, for a trunk that learns from it.
                states = self.read(input_ids[:, : self.config.context_length if trunk else max(timesteps) + 1])
            labels = self._project(states or (), timesteps, len(input_ids))
            return labels, states[-1] if trunk and states else None
        return self._encode_causal(input_ids, timesteps, trunk)

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings, and the convolution over them: (B, T) → (B, T, D)."""
        tokens = self.embed_tokens(input_ids)
        if not tokens.shape[1]:
            return tokens
        padded = F.pad(tokens.transpose(1, 2), (CONVOLUTION_WIDTH - 1, 0))
        return tokens + self.convolution(padded).transpose(1, 2)

    def read(self, input_ids: torch.Tensor) -> States:
        """The trunk's hidden states, of the embeddings and after each layer: (B, T) → L + 1 times (B, T, W).

        W is the width D, or that of a given model, which is loaded where this teacher was.
        """
        if self.config.encoder_type == "given":
            return (self.given or self.given_model()).states(input_ids)
        states, rotary = [self.embed(input_ids)], self.rotary(slice(0, input_ids.shape[1]))
        for block in self.encoder:
            states.append(block(states[-1], rotary, attend_causal))
        return tuple(states)

    def _project(self, states: States, timesteps: Sequence[int], batch: int) -> torch.Tensor:
        """m_t = norm(registers + P [h_t^0 ; … ; h_t^L]), where h_t^l is what layer l makes of x_t, of RMS 1.

        Registers are K learned vectors here, as they are in m_∅, which has nothing else.
        """
        eps, ends = self.config.rms_norm_eps, torch.tensor(timesteps, device=self.device)
        memory = self.registers.expand(batch, len(timesteps), -1, -1)
        if states:
            last = [normalize_memory(state[:, ends.clamp(min=0)], eps) for state in states]
            projected = self.projection(torch.cat(last, dim=-1).to(self.projection.weight.dtype))
            memory = memory + projected.view_as(memory) * (ends >= 0)[:, None, None]
        return normalize_memory(memory, eps)

    def _encode_window(self, context: torch.Tensor) -> torch.Tensor:
        """The paper's encoder: tokens and registers all see one another. (B, n) → (B, K, D)."""
        batch, length = context.shape
        x = torch.cat([self.embed_tokens(context), self.registers.expand(batch, -1, -1)], dim=1)
        rotary = self.rotary(slice(0, x.shape[1]))
        for block in self.encoder[:-1]:
            x = block(x, rotary, attend_all)
        x = self.encoder[-1](x, rotary, attend_all, queries=slice(length, None))
        return normalize_memory(x, self.config.rms_norm_eps)

    def _encode_causal(
        self, input_ids: torch.Tensor, timesteps: Sequence[int], trunk: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One pass over [x_0 … x_{T'−1} ; registers of label 1 ; … ; registers of label n].

        Tokens see the tokens before them. The registers of label t see x_0 … x_t and one another; they
        stand at positions t … t+K−1 and start from the convolved embedding of x_t, so that a register is
        at first a copy of the trunk's own last token. Otherwise labels carry nothing for hundreds of steps
        and collapse under the dynamics loss before they are read.
        """
        batch, num_labels, num_registers = input_ids.shape[0], len(timesteps), len(self.registers)
        length = max(timesteps) + 1  # later tokens are seen by no register
        device = input_ids.device
        tokens = self.embed(input_ids[:, :length])
        ends = torch.tensor(timesteps, device=device)
        registers = self.registers.expand(batch, num_labels, -1, -1)
        if length:
            last = tokens[:, ends.clamp(min=0)] * (ends >= 0)[:, None]
            registers = registers + last.unsqueeze(2)
        x = torch.cat([tokens, registers.flatten(1, 2)], dim=1)

        offsets = torch.arange(num_registers, device=device)
        positions = torch.cat(
            [torch.arange(length, device=device), (ends.clamp(min=0)[:, None] + offsets).flatten()]
        )
        rotary = self.rotary(positions)
        label = torch.arange(num_labels, device=device).repeat_interleave(num_registers)
        sees_tokens = torch.arange(length, device=device) <= ends[label, None]
        register_mask = torch.cat([sees_tokens, label == label[:, None]], dim=1)  # (nK, T'+nK)

        def attend_registers(q, k, v):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=register_mask)

        def attend(q, k, v):
            # Two products instead of one with a full mask: the long one keeps the fast causal kernel.
            first = attend_causal(q[:, :, :length], k[:, :, :length], v[:, :, :length])
            return torch.cat([first, attend_registers(q[:, :, length:], k, v)], dim=2)

        for block in self.encoder[:-1]:
            x = block(x, rotary, attend if length else attend_registers)
        trunk = trunk and length > 0
        if trunk:
            x = self.encoder[-1](x, rotary, attend)
        else:  # the tokens of the last block are not read
            x = self.encoder[-1](x, rotary, attend_registers, queries=slice(length, None))
        memory = x[:, length if trunk else 0 :].unflatten(1, (num_labels, num_registers))
        return normalize_memory(memory, self.config.rms_norm_eps), x[:, :length] if trunk else None

    def read_out(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Hidden states of the trunk (B, T, D) → logits (B, T, V), by the decoder's norm and head."""
        return self.lm_head(self.readout.norm(hidden_states))

    def decode(self, memory: torch.Tensor, future_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Memories m_t (N, K, D) and x_{t+1} … x_{t+F−1} (N, F−1) → logits of y_t … y_{t+F−1}, (N, F, V).

        Without a future: of y_t alone, (N, 1, V), as the model's readout does.
        """
        memory = memory.to(self.lm_head.weight.dtype)
        future = None if future_ids is None else self.embed_tokens(future_ids)
        return self.lm_head(self.readout(memory, future))


@torch.no_grad()
def hand_over(teacher: SMTTeacher, model: SMTForCausalLM) -> None:
    """Give the model what the teacher has learned: the decoder as readout, its head, and m_∅.

    This ends the SMT phase: from here on the model reads, predicts and starts cold by itself.
    """
    model.model.readout.load_state_dict(teacher.readout.state_dict())
    model.lm_head.load_state_dict(teacher.lm_head.state_dict())
    nothing = torch.zeros(1, 0, dtype=torch.long, device=teacher.device)
    model.model.initial_memory.copy_(teacher.encode(nothing, [-1])[0, 0])
