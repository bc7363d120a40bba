"""Each cell computes its textbook equation, and leaves every memory token with RMS 1."""

import math
from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, TOKENS, WIDTH, rms_norm, tiny_config, tiny_model

from smt_hf import MemoryCell
from smt_hf.models.cells import build_cell
from smt_hf.models.layers import Block

B = 3


def random_cell(name: str, **changes) -> Any:
    """The cell of a tiny model, in double precision so that tolerances can be tight."""
    return tiny_model(name, **changes).model.cell.double()


def memory_and_token() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return (
        rms_norm(torch.randn(B, TOKENS, WIDTH, dtype=torch.float64)),
        torch.randn(B, WIDTH, dtype=torch.float64),
    )


def copy_gates(cell, torch_cell: torch.nn.Module, suffix: str, layer: int) -> None:
    """Give layer `layer` of a torch recurrent module the weights of our cell's layer."""
    lower = cell.input_proj if layer == 0 else cell.lower_proj[layer - 1]
    hidden = cell.hidden_proj[layer]
    with torch.no_grad():
        for name, source in (
            ("weight_ih", lower.weight),
            ("bias_ih", lower.bias),
            ("weight_hh", hidden.weight),
            ("bias_hh", hidden.bias),
        ):
            getattr(torch_cell, name + suffix).copy_(source)


def raw_step(cell: MemoryCell, memory: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    return cell.step(memory, cell.project_inputs(token))


@pytest.mark.parametrize(("name", "torch_class"), [("gru", torch.nn.GRUCell), ("elman", torch.nn.RNNCell)])
def test_one_layer_step_equals_the_torch_cell(name, torch_class):
    cell = random_cell(name, num_hidden_layers=1)
    memory, token = memory_and_token()
    reference = torch_class(WIDTH, TOKENS * WIDTH, dtype=torch.float64)
    copy_gates(cell, reference, "", 0)
    torch.testing.assert_close(raw_step(cell, memory, token).flatten(1), reference(token, memory.flatten(1)))


def test_one_layer_lstm_step_equals_the_torch_cell_with_h_before_c_in_the_memory():
    cell = random_cell("lstm", num_hidden_layers=1)
    memory, token = memory_and_token()
    reference = torch.nn.LSTMCell(WIDTH, TOKENS * WIDTH // 2, dtype=torch.float64)
    copy_gates(cell, reference, "", 0)
    h, c = memory[:, : TOKENS // 2].flatten(1), memory[:, TOKENS // 2 :].flatten(1)
    new = raw_step(cell, memory, token)
    new_h, new_c = reference(token, (h, c))
    torch.testing.assert_close(new[:, : TOKENS // 2].flatten(1), new_h)
    torch.testing.assert_close(new[:, TOKENS // 2 :].flatten(1), new_c)


@pytest.mark.parametrize(("name", "torch_class"), [("gru", torch.nn.GRU), ("elman", torch.nn.RNN)])
def test_stacked_layers_equal_the_torch_stack_and_share_the_memory_out(name, torch_class):
    cell = random_cell(name, num_hidden_layers=2)
    memory, token = memory_and_token()
    half = TOKENS // 2
    reference = torch_class(WIDTH, half * WIDTH, num_layers=2, batch_first=True).double()
    copy_gates(cell, reference, "_l0", 0)
    copy_gates(cell, reference, "_l1", 1)
    start = torch.stack([memory[:, :half].flatten(1), memory[:, half:].flatten(1)])
    _, end = reference(token[:, None], start)
    new = raw_step(cell, memory, token)
    torch.testing.assert_close(new[:, :half].flatten(1), end[0])
    torch.testing.assert_close(new[:, half:].flatten(1), end[1])


def test_stacked_lstm_equals_the_torch_stack_with_each_layers_h_and_c_side_by_side():
    cell = random_cell("lstm", num_hidden_layers=2)
    memory, token = memory_and_token()
    reference = torch.nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True).double()
    copy_gates(cell, reference, "_l0", 0)
    copy_gates(cell, reference, "_l1", 1)
    h0, c0, h1, c1 = memory.unbind(1)
    _, (h, c) = reference(token[:, None], (torch.stack([h0, h1]), torch.stack([c0, c1])))
    expected = torch.stack([h[0], c[0], h[1], c[1]], dim=1)
    torch.testing.assert_close(raw_step(cell, memory, token), expected)


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def turned(vector: torch.Tensor, position: int, theta: float) -> torch.Tensor:
    """Rotary embedding by complex numbers: component i and i + d/2 are one number, turned by an angle."""
    half = vector.shape[-1] // 2
    number = torch.complex(vector[:half], vector[half:])
    for i in range(half):
        angle = position * theta ** (-2 * i / vector.shape[-1])
        number[i] = number[i] * complex(math.cos(angle), math.sin(angle))
    return torch.cat([number.real, number.imag])


def reference_block(block: Block, x: torch.Tensor, heads: int, theta: float, causal: bool) -> torch.Tensor:
    """One row, (L, D) → (L, D): attention with loops over heads, queries and keys, then the GELU block."""
    length, width = x.shape
    d = width // heads
    normed = rms_norm(x, block.attention_norm.weight)
    q, k, v = (normed @ weight.T for weight in block.qkv_proj.weight.chunk(3, dim=0))
    mixed = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for i in range(length):
            seen = range(i + 1) if causal else range(length)
            scores = [turned(q[i, part], i, theta) @ turned(k[j, part], j, theta) / math.sqrt(d) for j in seen]
            exponentials = [math.exp(score) for score in scores]
            for weight, j in zip(exponentials, seen, strict=True):
                mixed[i, part] += weight / sum(exponentials) * v[j, part]
    x = x + mixed @ block.o_proj.weight.T
    hidden = gelu(rms_norm(x, block.mlp_norm.weight) @ block.up_proj.weight.T)
    return x + hidden @ block.down_proj.weight.T


@torch.no_grad()
def test_transformer_step_equals_attention_written_out_over_memory_and_token():
    cell = random_cell("transformer")
    memory, token = memory_and_token()
    new = raw_step(cell, memory, token)
    for row in range(B):
        x = torch.cat([memory[row], token[row : row + 1]])
        for block in cell.blocks:
            x = reference_block(block, x, heads=2, theta=10000.0, causal=False)
        # The cosine table is float32.
        torch.testing.assert_close(new[row], x[:TOKENS], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_readout_equals_causal_attention_written_out_and_read_at_the_last_memory_token():
    readout = tiny_model().model.readout.double()
    memory, _ = memory_and_token()
    hidden = readout(memory)
    assert hidden.shape == (B, 1, WIDTH)
    for row in range(B):
        x = memory[row]
        for block in readout.blocks:
            x = reference_block(block, x, heads=2, theta=10000.0, causal=True)
        expected = rms_norm(x[-1], readout.norm.weight)
        torch.testing.assert_close(hidden[row, 0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_mlp_step_equals_its_formula():
    cell = random_cell("mlp")
    memory, token = memory_and_token()
    m = memory.flatten(1)
    hidden = TOKENS * 24
    for layer in range(2):
        rows = slice(layer * hidden, (layer + 1) * hidden)
        from_token = token @ cell.input_proj.weight[rows].T + cell.input_proj.bias[rows]
        normed = rms_norm(m, cell.norms[layer].weight)
        m = m + gelu(normed @ cell.up_proj[layer].weight.T + from_token) @ cell.down_proj[layer].weight.T
    torch.testing.assert_close(raw_step(cell, memory, token), m.view(B, TOKENS, WIDTH))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BUILT_IN_CELLS)
def test_memory_tokens_have_rms_one_in_float32_whatever_the_weights(name, dtype):
    cell = tiny_model(name).model.cell.to(dtype)
    memory, token = memory_and_token()
    new = cell(memory.float(), cell.project_inputs(token.to(dtype)))
    assert new.dtype == torch.float32
    rms = new.pow(2).mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.ones(B, TOKENS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", BUILT_IN_CELLS)
def test_the_cell_is_the_normalised_step(name):
    cell = tiny_model(name).model.cell
    memory, token = (x.float() for x in memory_and_token())
    inputs = cell.project_inputs(token)
    torch.testing.assert_close(cell(memory, inputs), rms_norm(cell.step(memory, inputs)))


@pytest.mark.parametrize("name", BUILT_IN_CELLS)
def test_inputs_of_all_timesteps_project_as_each_alone(name):
    cell = random_cell(name)
    tokens = torch.randn(B, 5, WIDTH, dtype=torch.float64)
    together = cell.project_inputs(tokens)
    for t in range(5):
        torch.testing.assert_close(together[:, t], cell.project_inputs(tokens[:, t]))


@pytest.mark.parametrize("name", BUILT_IN_CELLS)
def test_every_new_memory_token_hears_the_input_token(name):
    cell = random_cell(name)
    memory, token = memory_and_token()
    change = (cell(memory, cell.project_inputs(token)) - cell(memory, cell.project_inputs(-token))).abs()
    assert (change.amax(-1) > 1e-3).all()


def test_cells_are_built_by_name():
    for name in BUILT_IN_CELLS:
        assert type(build_cell(tiny_config(name))).__name__.lower() == f"{name}cell"
