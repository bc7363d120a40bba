"""The models that are measured, by name, all of about the same number of parameters. Weights are random.

The width is 256 and the vocabulary that of bytes; what is fitted to the wanted size is the depth, or for the
classical cells the width of the memory. Lookup of a position is free, so GPT-2's table does not count.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from smt_hf.models.configuration_smt import SMTConfig
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.pretraining.assembly import model_config
from smt_hf.runs.spec import RunSpec

VOCAB_SIZE, WIDTH, HEADS, READOUT_LAYERS = 258, 256, 8, 2
LONGEST_CONTEXT = 1 << 15  # positions that GPT-2 and Llama are built for


class TorchGRU(nn.Module):
    """`torch.nn.GRU` with a linear head: what a user would write by hand."""

    def __init__(self, width: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.gru = nn.GRU(WIDTH, width, batch_first=True)
        self.lm_head = nn.Linear(width, VOCAB_SIZE, bias=False)

    def forward(
        self, input_ids: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """input_ids (B, T) → logits of the last token (B, V), state (1, B, W)."""
        hidden, state = self.gru(self.embed_tokens(input_ids), state)
        return self.lm_head(hidden[:, -1]), state


def smt(cell: str, **sizes: int) -> nn.Module:
    common: dict[str, Any] = dict(vocab_size=VOCAB_SIZE, hidden_size=WIDTH, num_attention_heads=HEADS)
    return SMTForCausalLM(SMTConfig(cell=cell, **{**common, "num_readout_layers": READOUT_LAYERS, **sizes}))


def smt_preset(name: str) -> nn.Module:
    """The transformer cell of a preset, of its own size whatever is asked for; `paper` is the published one."""
    spec = RunSpec.of(preset=name, cell="transformer", max_steps=1, output_dir="unused")
    return SMTForCausalLM(model_config(spec, VOCAB_SIZE))


def gpt2(layers: int) -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=VOCAB_SIZE, n_embd=WIDTH, n_layer=layers, n_head=HEADS, n_positions=LONGEST_CONTEXT
    )
    return transformers.GPT2LMHeadModel(config)


def llama(layers: int) -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=WIDTH, intermediate_size=11 * WIDTH // 4, num_hidden_layers=layers,
        num_attention_heads=HEADS, max_position_embeddings=LONGEST_CONTEXT,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def mamba(layers: int) -> nn.Module:
    config = transformers.MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=WIDTH, num_hidden_layers=layers)
    return transformers.MambaForCausalLM(config)


def rwkv(layers: int) -> nn.Module:
    config = transformers.RwkvConfig(
        vocab_size=VOCAB_SIZE, hidden_size=WIDTH, num_hidden_layers=layers, context_length=LONGEST_CONTEXT
    )
    return transformers.RwkvForCausalLM(config)


def xlstm(layers: int) -> nn.Module:
    config = transformers.xLSTMConfig(
        vocab_size=VOCAB_SIZE, hidden_size=WIDTH, num_hidden_layers=layers, num_heads=HEADS
    )
    return transformers.xLSTMForCausalLM(config)


# name → builder of one size, which is fitted to the wanted number of parameters.
BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "smt-gru": lambda k: smt("gru", num_memory_tokens=k),
    "smt-lstm": lambda k: smt("lstm", num_memory_tokens=2 * k),
    "smt-elman": lambda k: smt("elman", num_memory_tokens=k),
    "smt-mlp": lambda layers: smt("mlp", num_memory_tokens=2, num_hidden_layers=layers),
    "smt-transformer": lambda layers: smt("transformer", num_memory_tokens=16, num_hidden_layers=layers),
    "smt-small": lambda size: smt_preset("small"),
    "smt-paper": lambda size: smt_preset("paper"),
    "gpt2": gpt2,
    "llama": llama,
    "mamba": mamba,
    "rwkv": rwkv,
    "xlstm": xlstm,
    "torch-gru": lambda width: TorchGRU(64 * width),
}


def count_parameters(model: nn.Module) -> int:
    """Parameters that take part in a product: a table of positions is left out."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.endswith("wpe.weight"))


def build_model(name: str, parameters: int) -> nn.Module:
    """The named model whose size is nearest to `parameters`, in eval mode, with random weights of seed 0.

    Raises ImportError or AttributeError where the installed `transformers` does not have it.
    """
    builder = BUILDERS[name]

    def size_of(size: int) -> int:
        with torch.device("meta"):
            return count_parameters(builder(size))

    size = 1
    while size_of(size) < parameters and size_of(size + 1) > size_of(size):
        size += 1
    if size > 1 and parameters - size_of(size - 1) < size_of(size) - parameters:
        size -= 1
    torch.manual_seed(0)
    return builder(size).eval()
