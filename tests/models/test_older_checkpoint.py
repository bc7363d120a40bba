"""A checkpoint and a state that smt-hf 0.1.0 saved, with transformers 5.23: they mean what they meant then."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import generate
from transformers import AutoModelForCausalLM

from smt_hf import SMTForCausalLM

SAVED = Path(__file__).parent / "made_by_0.1.0"
EXPECTED = json.loads((SAVED / "expected.json").read_text())
IDS = torch.tensor([EXPECTED["ids"]])


@torch.no_grad()
def test_it_loads_and_computes_what_it_did():
    model: Any = AutoModelForCausalLM.from_pretrained(SAVED)
    torch.testing.assert_close(model(IDS).logits[0, -1], torch.tensor(EXPECTED["logits"]), rtol=0, atol=1e-5)
    new = len(EXPECTED["generated"]) - IDS.shape[1]
    assert len(set(EXPECTED["generated"][-new:])) > 5
    for options in ({}, {"output_hidden_states": True}, {"cache_implementation": "static"}):
        out = generate(model, IDS, max_new_tokens=new, do_sample=False, **options)
        assert out[0].tolist() == EXPECTED["generated"]


@torch.no_grad()
def test_its_state_goes_on_where_it_was():
    model: Any = AutoModelForCausalLM.from_pretrained(SAVED)
    state = model.load_state(SAVED / "state.safetensors")
    assert state.get_seq_length() == EXPECTED["read_by_the_state"]
    logits = model(IDS[:, state.get_seq_length() :], cache=state).logits
    torch.testing.assert_close(logits, model(IDS).logits[:, -logits.shape[1] :], rtol=0, atol=1e-5)


@pytest.mark.parametrize("trust", [False, True])
def test_where_the_package_is_imported_the_code_in_the_checkpoint_is_not_run(trust, tmp_path):
    """Old code generates wrong text with transformers 5.24, and nothing in a newer package could tell it so."""
    folder = shutil.copytree(SAVED, tmp_path / "old")
    for name in ("configuration_smt.py", "modeling_smt.py"):
        (folder / name).write_text("raise AssertionError('the code of the checkpoint was run')\n")
    assert type(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust)) is SMTForCausalLM
