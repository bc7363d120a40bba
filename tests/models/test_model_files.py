"""A saved model comes back bit for bit through the Auto classes, for every cell, from safetensors alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, LeakyCell, generate, is_one_sentence, memory_of, random_ids, tiny_model
from transformers import AutoModel, AutoModelForCausalLM

from smt_hf import CELLS, SMTForCausalLM, SMTModel, register_cell

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def leaky() -> Iterator[str]:
    register_cell("leaky", LeakyCell)
    yield "leaky"
    CELLS.pop("leaky", None)


def assert_same(loaded: torch.nn.Module, model: torch.nn.Module) -> None:
    """Every parameter and every buffer, those that are not saved included, is bit-equal."""
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(model, kind)()), dict(getattr(loaded, kind)())
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(theirs[name], value) and theirs[name].dtype == value.dtype, name


@pytest.mark.parametrize("cell", [*BUILT_IN_CELLS, "leaky"])
@torch.no_grad()
def test_save_and_load_is_bit_equal(cell, leaky, tmp_path):
    model = tiny_model(cell)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is SMTForCausalLM
    assert not loaded.training
    assert_same(loaded, model)
    ids = random_ids(2, 6)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@torch.no_grad()
def test_the_base_model_loads_from_the_same_folder(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is SMTModel
    assert_same(loaded, model.model)


def test_only_safetensors_and_the_code_that_reads_them_are_written(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    code = {path.name for path in (REPOSITORY / "smt_hf" / "models").glob("*.py")} - {"__init__.py"}
    assert names == {"config.json", "generation_config.json", "model.safetensors"} | code


def test_nothing_is_missing_or_left_over_when_loading(tmp_path):
    tiny_model("transformer").save_pretrained(tmp_path)
    # Declared to return a model, whatever it is asked for.
    result: Any = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    _, report = result
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]


def test_a_cell_that_is_not_registered_is_named_when_loading(leaky, tmp_path):
    tiny_model("leaky").save_pretrained(tmp_path)
    del CELLS["leaky"]
    with pytest.raises(ValueError) as error:
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert is_one_sentence(error.value, "'leaky'", "register_cell")


def test_a_new_model_starts_as_documented():
    """Embeddings N(0, initializer_range²), linear layers N(0, 1/fan_in), norms 1, biases 0."""
    torch.manual_seed(0)
    config = tiny_model("transformer").config
    config.vocab_size, config.hidden_size, config.initializer_range = 400, 64, 0.5
    inner = SMTForCausalLM(config).model
    assert abs(inner.embed_tokens.weight.std() - 0.5) < 0.02
    block = inner.readout.blocks[0]
    assert abs(block.up_proj.weight.std() - 64**-0.5) < 0.01
    assert abs(block.down_proj.weight.std() - 24**-0.5) < 0.02
    assert (inner.readout.norm.weight == 1).all()
    assert abs(inner.initial_memory.std() - 1) < 0.15
    assert (SMTForCausalLM(tiny_model("gru").config).model.cell.input_proj.bias == 0).all()


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_bfloat16_weights_load_and_the_state_stays_float32(cell, tmp_path):
    model = tiny_model(cell)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    out = loaded(random_ids(2, 9))
    memory = memory_of(out.past_key_values)
    assert out.logits.dtype == torch.bfloat16
    assert memory.dtype == torch.float32
    torch.testing.assert_close(memory.pow(2).mean(-1).sqrt(), torch.ones(2, 4), rtol=0, atol=1e-4)
    expected = model(random_ids(2, 9)).logits
    relative = (out.logits.float() - expected).norm() / expected.norm()
    assert relative < 0.1
    tokens = generate(loaded, random_ids(2, 4), max_new_tokens=3, do_sample=False)
    assert tokens.shape == (2, 7)


@torch.no_grad()
def test_a_fresh_process_that_imports_smt_hf_loads_and_computes_the_same(tmp_path):
    model = tiny_model("transformer")
    model.save_pretrained(tmp_path)
    ids = random_ids(1, 6)
    program = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "import smt_hf\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        f"torch.save(model(torch.tensor({ids.tolist()})).logits.detach(), sys.argv[2])\n"
    )
    logits = tmp_path / "logits.pt"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(logits)],
        check=True,
        cwd=REPOSITORY,
        timeout=120,
    )
    torch.testing.assert_close(torch.load(logits, weights_only=True), model(ids).logits)
