# Keyword dictionaries of mixed values.
# mypy: disable-error-code="arg-type"
"""A GRU without normalisation: what it computes, and what it can never reach."""

import torch

from smt_hf import SMTConfig
from smt_hf.experiments.plain_gru import PlainGRUCell
from smt_hf.models.cell_gru import GRUCell


def cell_of(cell_class, width: int = 8):
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "num_memory_tokens": 1, "num_attention_heads": 1, "num_readout_layers": 1}
    cell = cell_class(SMTConfig(vocab_size=5, cell="gru", num_hidden_layers=1, **sizes))
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(2 * torch.randn_like(parameter))  # far into the saturation of its gates
    return cell


@torch.no_grad()
def test_it_is_the_gru_of_torch():
    cell, standard = cell_of(PlainGRUCell), torch.nn.GRUCell(8, 8)
    standard.weight_ih.copy_(cell.input_proj.weight)
    standard.bias_ih.copy_(cell.input_proj.bias)
    standard.weight_hh.copy_(cell.hidden_proj[0].weight)
    standard.bias_hh.copy_(cell.hidden_proj[0].bias)
    memory, x = torch.randn(3, 1, 8), torch.randn(3, 8)
    torch.testing.assert_close(cell(memory, cell.project_inputs(x))[:, 0], standard(x, memory[:, 0]))


@torch.no_grad()
def test_its_entries_stay_within_one_so_that_its_rms_is_below_that_of_any_label():
    plain, normalised = cell_of(PlainGRUCell), cell_of(GRUCell)
    memory = other = torch.zeros(64, 1, 8)
    for x in torch.randn(50, 64, 8):
        memory, other = (cell(m, cell.project_inputs(x)) for cell, m in ((plain, memory), (normalised, other)))
        assert (memory.abs() <= 1).all() and (memory.square().mean(-1) < 1).all()
    torch.testing.assert_close(other.square().mean(-1), torch.ones(64, 1), rtol=1e-4, atol=1e-4)
    assert (other.abs() > 1).any()


@torch.no_grad()
def test_no_entry_of_a_label_beyond_one_is_reached_from_within():
    """The floor of the dynamics loss: the mean of (|label| − 1)² over the entries beyond ±1."""
    label = torch.nn.functional.normalize(torch.randn(64, 1, 8), dim=-1) * 8**0.5
    floor = (label.abs() - 1).clamp(min=0).square().mean()
    cell, memory = cell_of(PlainGRUCell), torch.rand(64, 1, 8) * 2 - 1
    for x in torch.randn(20, 64, 8):
        assert (cell(memory, cell.project_inputs(x)) - label).square().mean() >= floor > 0.05
