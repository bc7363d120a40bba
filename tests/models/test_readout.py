"""The readout answers from the memory alone, and as a decoder never looks ahead."""

import pytest
import torch
from tiny_models import TOKENS, WIDTH, tiny_config

from smt_hf.models.layers import attend_causal, init_weights
from smt_hf.models.readout import Readout


@pytest.fixture
def readout() -> Readout:
    module = Readout(tiny_config(), max_future=6)
    for part in module.modules():
        init_weights(part, 1.0)
    torch.nn.init.uniform_(module.norm.weight, 0.5, 1.5)
    return module.eval()


@torch.no_grad()
def test_one_query_fast_path_equals_the_causal_path_at_the_last_memory_token(readout):
    memory = torch.randn(5, TOKENS, WIDTH)
    x, rotary = memory, readout.rotary(slice(0, TOKENS))
    for block in readout.blocks:
        x = block(x, rotary, attend_causal)
    torch.testing.assert_close(readout(memory), readout.norm(x[:, -1:]))


@torch.no_grad()
def test_the_first_of_the_decoder_states_is_the_readout_of_the_memory_alone(readout):
    memory, future = torch.randn(5, TOKENS, WIDTH), torch.randn(5, 6, WIDTH)
    states = readout(memory, future)
    assert states.shape == (5, 7, WIDTH)
    torch.testing.assert_close(states[:, :1], readout(memory))


@torch.no_grad()
def test_decoder_state_i_sees_the_first_i_future_tokens_and_no_later_one(readout):
    memory, future = torch.randn(5, TOKENS, WIDTH), torch.randn(5, 6, WIDTH)
    states = readout(memory, future)
    for changed in range(6):
        other = future.clone()
        other[:, changed] = torch.randn(5, WIDTH)
        moved = (readout(memory, other) - states).abs().amax(dim=(0, 2))
        assert (moved[: changed + 1] < 1e-6).all()
        assert (moved[changed + 1 :] > 1e-4).all()


@torch.no_grad()
def test_every_memory_token_reaches_the_readout(readout):
    memory = torch.randn(5, TOKENS, WIDTH)
    for token in range(TOKENS):
        other = memory.clone()
        other[:, token] = torch.randn(5, WIDTH)
        assert (readout(other) - readout(memory)).abs().max() > 1e-3


@torch.no_grad()
def test_a_short_future_reads_as_the_beginning_of_a_long_one(readout):
    memory, future = torch.randn(5, TOKENS, WIDTH), torch.randn(5, 6, WIDTH)
    torch.testing.assert_close(readout(memory, future[:, :2]), readout(memory, future)[:, :3])
