"""Blocks that the cell, the readout and the teacher share: rotary attention and feed-forward, pre-norm.

Shapes: B rows, L positions, D width, H heads, d = D/H width of a head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def token_mask(attention_mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """attention_mask (B, ≥T) → which of its last `length` = T tokens are real, (B, T, 1, 1) bool."""
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; it must be rows by tokens, since a "
            f"memory cannot hide a token from some of the others."
        )
    if attention_mask.shape[1] < length:
        raise ValueError(
            f"attention_mask has {attention_mask.shape[1]} columns for {length} tokens; it must have at least "
            f"as many."
        )
    return attention_mask[:, -length:].bool()[:, :, None, None]


def normalize_memory(memory: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS-normalise each memory token, (..., K, D) → float32 (..., K, D) with mean square 1.

    There is no learned scale: the memory's size must not be a way to store or to lose information.
    Float32 always, whatever the weights are, because the state is fed back without end.
    """
    memory = memory.float()
    return memory * torch.rsqrt(memory.square().mean(-1, keepdim=True) + eps)


class RotaryTable(nn.Module):
    """Cosines and sines of the rotary embedding for positions 0 … num_positions−1, made once."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config, num_positions: int):
        super().__init__()
        self.theta = config.rope_parameters["rope_theta"]
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_positions = num_positions
        cos, sin = self.compute()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(num_positions, 1, d) each, in float32; the sines of the first half negative, for `rotate`."""
        frequencies = self.theta ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angles = torch.outer(torch.arange(self.num_positions).float(), frequencies)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], dim=1)[:, None], torch.cat([-sin, sin], dim=1)[:, None]

    def forward(self, positions: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows for the given positions, (L, 1, d) each."""
        return self.cos[positions], self.sin[positions]


def rotate(x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotate the pairs (i, i + d/2) of x (B, L, H, d) by the angles of its positions."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos.to(x.dtype), torch.cat([second, first], dim=-1), sin.to(x.dtype))


def attend_all(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Every query sees every key."""
    return F.scaled_dot_product_attention(q, k, v)


def attend_causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Query i sees keys 0 … i."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Block(nn.Module):
    """Pre-norm Transformer block: x + attention(norm(x)), then + MLP(norm(x)). No biases, no dropout."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.attention_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.up_proj = nn.Linear(width, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        attend: Attend,
        queries: slice | None = None,
    ) -> torch.Tensor:
        """x (B, L, D) → (B, L', D), where `queries` picks the L' positions worth computing (all if None).

        The last block of a stack needs only the positions somebody reads; keys and values stay whole.
        """
        batch, length = x.shape[:2]
        # The width of a head as a number, since an exporter may not know that of the memory.
        qkv = self.qkv_proj(self.attention_norm(x)).view(batch, length, 3 * self.num_heads, self.head_dim)
        qk, v = qkv.split([2 * self.num_heads, self.num_heads], dim=2)
        q, k = rotate(qk, rotary).transpose(1, 2).chunk(2, dim=1)
        v = v.transpose(1, 2)
        if queries is not None:
            q, x = q[:, :, queries], x[:, queries]
        x = x + self.o_proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down_proj(F.gelu(self.up_proj(self.mlp_norm(x))))


@torch.no_grad()
def init_weights(module: nn.Module, embedding_std: float) -> None:
    """Initial values: embeddings N(0, embedding_std²), linear layers N(0, 1/fan_in), norms 1, biases 0.

    Residual projections are not scaled down: starting them at or near zero delays learning what to
    remember, since gradients reach the memory only through them.
    """
    if isinstance(module, nn.Linear):
        init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        init.normal_(module.weight, std=embedding_std)
    elif isinstance(module, nn.RMSNorm):
        init.ones_(module.weight)
    elif isinstance(module, RotaryTable):
        cos, sin = module.compute()
        init.copy_(module.cos, cos)
        init.copy_(module.sin, sin)
