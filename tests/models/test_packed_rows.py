"""Documents packed into one row do not leak into each other."""

from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, is_one_sentence, pad, random_ids, tiny_model
from transformers import DataCollatorWithFlattening

LENGTHS = (5, 1, 4)


def packed() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Documents, and one row of them: ids, position_ids, seq_idx, (1, 10) each."""
    documents = [random_ids(length, seed=length) for length in LENGTHS]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    numbers = torch.cat([torch.full((length,), i) for i, length in enumerate(LENGTHS)])
    return documents, torch.cat(documents)[None], positions[None], numbers[None]


@pytest.mark.parametrize("key", ["position_ids", "seq_idx", "cu_seq_lens_q"])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_each_document_reads_as_if_alone(cell, key):
    model = tiny_model(cell)
    documents, ids, positions, numbers = packed()
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    flags: dict[str, Any] = {key: dict(position_ids=positions, seq_idx=numbers, cu_seq_lens_q=ends)[key]}
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
    state = model(whole[:, :5], position_ids=torch.arange(5)[None]).cache
    later = model(whole[:, 5:], cache=state, position_ids=torch.arange(5, 8)[None]).logits
    torch.testing.assert_close(later, model(whole).logits[:, 5:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_first_document_of_a_packed_row_goes_on_from_the_state():
    model = tiny_model()
    begun, rest, other = random_ids(4, seed=8), random_ids(3, seed=9), random_ids(5, seed=10)
    state = model(begun[None]).cache
    numbers = torch.tensor([[0] * 3 + [1] * 5])
    logits = model(torch.cat([rest, other])[None], cache=state, seq_idx=numbers).logits
    whole = model(torch.cat([begun, rest])[None]).logits[:, 4:]
    torch.testing.assert_close(logits[:, :3], whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits[:, 3:], model(other[None]).logits, rtol=0, atol=1e-5)


def test_what_the_flattening_collator_makes_is_read_document_by_document():
    """All that it can say of the documents at once, and then without the positions."""
    model = tiny_model()
    documents, _, _, _ = packed()
    collate: Any = DataCollatorWithFlattening(
        return_tensors="pt", return_flash_attn_kwargs=True, return_seq_idx=True
    )
    batch = dict(collate([{"input_ids": document.tolist()} for document in documents]))
    assert {"cu_seq_lens_k", "max_length_k", "max_length_q"} <= batch.keys()
    expected = torch.cat([model(document[None]).logits for document in documents], dim=1)
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)
    del batch["position_ids"], batch["seq_idx"]
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"cu_seq_lens_q": torch.tensor([0, 2, 6])}, ("cu_seq_lens_q", "2 rows")),
        ({"seq_idx": torch.zeros(2, 5)}, ("seq_idx has 5", "6 tokens")),
        ({"position_ids": torch.arange(7)[None]}, ("position_ids has 7", "6 tokens")),
    ],
)
def test_documents_that_do_not_fit_the_rows_are_refused(flags, said):
    with pytest.raises(ValueError) as error:
        tiny_model()(random_ids(2, 6), **flags)
    assert is_one_sentence(error.value, *said)
