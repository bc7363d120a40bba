"""A saved model comes back bit for bit through the Auto classes, for every cell, from safetensors alone."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from safetensors.torch import load_file, save_file
from tiny_models import BUILT_IN_CELLS, LeakyCell, generate, is_one_sentence, memory_of, random_ids, tiny_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, pipeline

from smt_hf import CELLS, SMTForCausalLM, SMTModel, register_cell
from smt_hf.data.tokenizer import byte_tokenizer

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
    memory = memory_of(out.cache)
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
    run = warm.run(program, tmp_path, logits)
    assert run.returncode == 0, run.stderr
    torch.testing.assert_close(torch.load(logits, weights_only=True), model(ids).logits)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_shards_load_bit_equal(cell, tmp_path):
    model = tiny_model(cell)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("device_map", ["auto", "cpu"])
def test_a_device_map_changes_nothing(device_map, tmp_path):
    model = tiny_model("transformer")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=device_map)
    ids = random_ids(2, 5)
    assert_same(loaded, model)
    options: dict[str, Any] = dict(max_new_tokens=6, do_sample=False)
    assert torch.equal(generate(loaded, ids, **options), generate(model, ids, **options))


def test_missing_and_surplus_weights_are_named(tmp_path, caplog, monkeypatch):
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.surplus.weight"] = weights.pop("model.initial_memory")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    library = logging.getLogger("transformers")
    monkeypatch.setattr(library, "propagate", True)
    monkeypatch.setattr(library, "level", logging.WARNING)  # commands run by other tests make it quiet
    library.manager._clear_cache()  # type: ignore[attr-defined]  # loggers remember what they are allowed
    result: Any = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    _, report = result
    assert set(report["missing_keys"]) == {"model.initial_memory"}
    assert set(report["unexpected_keys"]) == {"model.surplus.weight"}
    assert "initial_memory" in caplog.text and "surplus" in caplog.text


def test_a_checkpoint_of_a_newer_config_version_is_one_clear_error(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["config_version"] == 1
    (tmp_path / "config.json").write_text(json.dumps({**content, "config_version": 2}))
    for load in (AutoConfig, AutoModelForCausalLM):
        with pytest.raises(ValueError) as error:
            load.from_pretrained(tmp_path)
        assert is_one_sentence(error.value, "config_version is 2", "up to 1", "update")


def test_the_pipeline_gives_a_ragged_batch_what_it_gives_its_rows_alone(tmp_path):
    tokenizer = byte_tokenizer()
    model = tiny_model("elman", vocab_size=len(tokenizer))
    texts = ["The river ", "A", "It was late. "]
    options: dict[str, Any] = dict(max_new_tokens=8, do_sample=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    generator: Any = pipeline("text-generation", str(tmp_path))
    together = generator(texts, batch_size=3, return_tensors=True, **options)
    for text, (out,) in zip(texts, together, strict=True):
        ids = torch.tensor([list(text.encode())])
        alone = generate(model, ids, pad_token_id=tokenizer.pad_token_id, **options)
        assert out["generated_token_ids"][-8:] == alone[0, -8:].tolist()
    assert generator(texts[0], **options)[0]["generated_text"].startswith(texts[0])


# Loads every folder under argv[1] without smt_hf, writes what it computes, and saves it again under argv[3].
WITHOUT_THE_PACKAGE = """
import json, os, sys
sys.modules["smt_hf"] = None
import torch
from pathlib import Path
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
torch.set_num_threads(1)
source, ids, again = Path(sys.argv[1]), torch.tensor(json.loads(sys.argv[2])), sys.argv[3]
found = {}
loaded = {}
for folder in sorted(source.iterdir()):
    assert type(AutoConfig.from_pretrained(folder, trust_remote_code=True)).__name__ == "SMTConfig"
    base = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model = loaded[folder.name] = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules.")
    tokens = model.generate(ids, max_new_tokens=8, do_sample=False)
    static = model.generate(ids, max_new_tokens=8, do_sample=False, cache_implementation="static")
    found[folder.name] = dict(
        tokens=tokens.tolist(), static=static.tolist(), hidden=base(ids).last_hidden_state.tolist()
    )
    if again != "-":
        model.save_pretrained(Path(again) / folder.name)
for name, model in loaded.items():  # the states of each, after the code of all has been loaded
    state = model(ids[:, :3]).cache
    model.save_state(state, source.parent / "state", overwrite=True)
    later = model(ids[:, 3:], cache=model.load_state(source.parent / "state")).logits
    assert torch.equal(later, model(ids[:, 3:], cache=state).logits), name
print(json.dumps(found))
"""


def test_without_the_package_the_code_of_the_checkpoint_computes_the_same(tmp_path):
    """All cells in one process, saved again from there, and loaded again in another."""
    models = {cell: tiny_model(cell) for cell in BUILT_IN_CELLS}
    ids = random_ids(2, 6)
    for cell, model in models.items():
        model.save_pretrained(tmp_path / "first" / cell)
    for source, again in (("first", "second"), ("second", None)):
        to = str(tmp_path / again) if again else "-"
        run = warm.run(
            WITHOUT_THE_PACKAGE, tmp_path / source, json.dumps(ids.tolist()), to, cwd=tmp_path,
            env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / f"modules_{source}")},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        found = json.loads(run.stdout.splitlines()[-1])
        for cell, model in models.items():
            expected = generate(model, ids, max_new_tokens=8, do_sample=False).tolist()
            assert found[cell]["tokens"] == found[cell]["static"] == expected
            hidden = model.model(ids).last_hidden_state.detach()
            torch.testing.assert_close(torch.tensor(found[cell]["hidden"]), hidden)
    for cell, model in models.items():
        names = {path.name for path in (tmp_path / "first" / cell).iterdir()}
        assert {path.name for path in (tmp_path / "second" / cell).iterdir()} == names
        assert_same(AutoModelForCausalLM.from_pretrained(tmp_path / "second" / cell), model)
