"""`resize_token_embeddings`: new token ids, and the old ones as before."""

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, VOCAB, random_ids, tiny_model

from smt_hf import SMTForCausalLM


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_added_tokens_leave_the_old_logits_as_they_were(cell, tmp_path):
    model, ids = tiny_model(cell), random_ids(2, 7)
    expected = model(ids).logits
    model.resize_token_embeddings(VOCAB + 3)
    torch.testing.assert_close(model(ids).logits[..., :VOCAB], expected, rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path)
    again = SMTForCausalLM.from_pretrained(tmp_path)
    assert again.config.vocab_size == VOCAB + 3
    new = torch.tensor([[VOCAB + 2, 1]])
    torch.testing.assert_close(again(new).logits, model(new).logits)


@torch.no_grad()
def test_fewer_tokens_leave_the_logits_that_remain():
    model, ids = tiny_model(), random_ids(2, 7).clamp(max=VOCAB - 6)
    expected = model(ids).logits[..., : VOCAB - 5]
    model.resize_token_embeddings(VOCAB - 5)
    torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-6)
