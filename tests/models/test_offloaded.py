"""A model whose weights lie on a disk does all that it does in memory."""

from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, generate, memory_of, random_ids, tiny_model

from smt_hf import SMTForCausalLM, SMTModel

MAPS: dict[str, dict[str, Any]] = {
    "all on disk": {"device_map": {"": "disk"}},
    "all but the head": {"device_map": {"model": "disk", "lm_head": "cpu"}},
    "automatic": {"device_map": "auto", "max_memory": {"cpu": 8000}},
    "all in memory": {"device_map": {"": "cpu"}},
}


@pytest.fixture
def folder(request, tmp_path) -> Any:
    tiny_model(request.param).save_pretrained(tmp_path)
    return tmp_path


def load(cls: Any, folder: Any, **where: Any) -> Any:
    try:
        return cls.from_pretrained(folder, offload_folder=folder / "offloaded", **where)
    except ValueError as error:
        if "offload the whole model to the disk" in str(error):
            pytest.skip("this version of accelerate puts no whole model on the disk")
        raise


# accelerate says so of a map that it made itself: the first memory is a parameter of no module of its own.
@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules:UserWarning")
@pytest.mark.parametrize("folder", BUILT_IN_CELLS, indirect=True)
@pytest.mark.parametrize("where", MAPS)
@torch.no_grad()
def test_states_are_read_saved_loaded_and_gone_on_from(where, folder):
    whole: Any = SMTForCausalLM.from_pretrained(folder)
    model = load(SMTForCausalLM, folder, **MAPS[where])
    assert any(p.is_meta for p in model.parameters()) == (where != "all in memory")
    ids = random_ids(2, 9)
    expected = memory_of(whole(ids).cache)
    torch.testing.assert_close(model.base_model.start_memory(2), whole.base_model.start_memory(2))
    read = model.prefill(ids, attention_mask=torch.ones_like(ids), tolerance=0.0)
    torch.testing.assert_close(memory_of(read.cache), expected)
    model.save_state(model(ids).cache, folder / "state.safetensors")
    for one, other in ((model, whole), (whole, model)):
        state = one.load_state(folder / "state.safetensors")
        torch.testing.assert_close(memory_of(state), expected)
        one.save_state(state, folder / "again.safetensors", overwrite=True)
        torch.testing.assert_close(memory_of(other.load_state(folder / "again.safetensors")), expected)
    more, seen = random_ids(2, 3, seed=2), torch.ones(2, 12, dtype=torch.long)
    answers = [
        generate(
            each, more, attention_mask=seen, cache=each.load_state(folder / "state.safetensors"),
            max_new_tokens=20, do_sample=False,
        )
        for each in (whole, model)
    ]  # fmt: skip
    assert torch.equal(*answers)


@pytest.mark.parametrize("folder", ["gru"], indirect=True)
@torch.no_grad()
def test_the_base_model_does_so_too(folder):
    model, ids = load(SMTModel, folder, device_map={"": "disk"}), random_ids(2, 9)
    expected = memory_of(SMTForCausalLM.from_pretrained(folder)(ids).cache)
    torch.testing.assert_close(memory_of(model.prefill(ids, tolerance=0.0).cache), expected)
    model.save_state(model(ids).cache, folder / "state.safetensors")
    torch.testing.assert_close(memory_of(model.load_state(folder / "state.safetensors")), expected)


@pytest.mark.parametrize("folder", ["gru"], indirect=True)
@torch.no_grad()
def test_the_weights_are_back_on_disk_afterwards(folder):
    model, ids = load(SMTForCausalLM, folder, device_map={"": "disk"}), random_ids(1, 4)
    model.save_state(model.prefill(ids).cache, folder / "state.safetensors")
    model.load_state(folder / "state.safetensors")
    assert all(parameter.is_meta for parameter in model.parameters())
