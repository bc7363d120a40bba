"""Documents packed into one row do not leak into each other."""

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, pad, random_ids, tiny_model

LENGTHS = (5, 1, 4)


def packed() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Documents, and one row of them: ids, position_ids, seq_idx, (1, 10) each."""
    documents = [random_ids(length, seed=length) for length in LENGTHS]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    numbers = torch.cat([torch.full((length,), i) for i, length in enumerate(LENGTHS)])
    return documents, torch.cat(documents)[None], positions[None], numbers[None]


@pytest.mark.parametrize("key", ["position_ids", "seq_idx"])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_each_document_reads_as_if_alone(cell, key):
    model = tiny_model(cell)
    documents, ids, positions, numbers = packed()
    flags = {key: positions if key == "position_ids" else numbers}
    logits = model(ids, **flags).logits
    alone = torch.cat([model(document[None]).logits for document in documents], dim=1)
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
    assert not torch.allclose(model(ids).logits, alone, atol=1e-2)
    base = model.model(input_ids=ids, **flags).last_hidden_state
    assert torch.equal(model.lm_head(base), logits)


def test_no_gradient_crosses_from_one_document_to_the_one_before():
    model = tiny_model().train()
    model.activation_checkpointing_enable()
    _, ids, positions, _ = packed()
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    model(inputs_embeds=embeds, position_ids=positions).logits[:, 6:].sum().backward()
    assert embeds.grad is not None
    touched = embeds.grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 6 + [True] * 4


@torch.no_grad()
def test_padding_positions_do_not_reset_and_a_state_is_kept():
    model = tiny_model()
    rows = [random_ids(6), random_ids(3, seed=2)]
    for side in ("left", "right"):
        ids, mask = pad(rows, side)
        positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
        expected = model(ids, attention_mask=mask).logits
        assert torch.equal(model(ids, attention_mask=mask, position_ids=positions).logits, expected)
    whole = random_ids(1, 8)
    state = model(whole[:, :5], position_ids=torch.arange(5)[None]).past_key_values
    later = model(whole[:, 5:], past_key_values=state, position_ids=torch.arange(5, 8)[None]).logits
    torch.testing.assert_close(later, model(whole).logits[:, 5:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_first_document_of_a_packed_row_goes_on_from_the_state():
    model = tiny_model()
    begun, rest, other = random_ids(4, seed=8), random_ids(3, seed=9), random_ids(5, seed=10)
    state = model(begun[None]).past_key_values
    numbers = torch.tensor([[0] * 3 + [1] * 5])
    logits = model(torch.cat([rest, other])[None], past_key_values=state, seq_idx=numbers).logits
    whole = model(torch.cat([begun, rest])[None]).logits[:, 4:]
    torch.testing.assert_close(logits[:, :3], whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[:, 3:], model(other[None]).logits, rtol=0, atol=1e-5)
