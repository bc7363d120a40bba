"""Tiny models and prompts for the tests of this room."""

import random
from typing import Any

import torch
from transformers import GenerationConfig

from smt_hf import SMTConfig, SMTForCausalLM

VOCAB, END = 50, 3


def tiny_model(cell: str = "gru", seed: int = 0) -> SMTForCausalLM:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_memory_tokens": 2, "num_attention_heads": 2}
    config = SMTConfig(vocab_size=VOCAB, num_readout_layers=1, cell=cell, **sizes)
    model = SMTForCausalLM(config).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = END
    return model


def random_prompts(count: int, longest: int = 40, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def greedy(tokens: int, **changes: Any) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=tokens, do_sample=False, **changes)


def alone(model: SMTForCausalLM, prompt: list[int], config: GenerationConfig, **given: Any) -> list[int]:
    """What `model.generate` adds to a prompt."""
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **given)
    return out[0, len(prompt) :].tolist()
