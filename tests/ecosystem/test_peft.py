"""LoRA on the cell: every adapted layer really changes the memory, and the adapter saves, loads and merges."""

from typing import Any

import pytest
import torch
from tiny_checkpoints import CELLS, byte_ids, cell_layers_pattern, needs, save_checkpoint, tiny_model

from smt_hf import SMTForCausalLM

pytestmark = needs("peft")

TEXT = "A line of text."


def adapted(model: SMTForCausalLM) -> Any:
    """LoRA on every linear layer of the cell, with B not zero, as after training."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=cell_layers_pattern(), init_lora_weights=False)
    return get_peft_model(model, config)


@torch.no_grad()
def memory_after(model: Any) -> torch.Tensor:
    return model(input_ids=byte_ids(TEXT), use_cache=True).cache.layers[0].memory


def cell_layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@pytest.mark.parametrize("cell", CELLS)
def test_every_linear_layer_of_the_cell_is_adapted_and_nothing_else(cell):
    plain = tiny_model(cell)
    expected = {
        f"base_model.model.{name}"
        for name, module in plain.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("model.cell.")
    }
    assert set(cell_layers(adapted(plain))) == expected


@pytest.mark.parametrize("cell", CELLS)
def test_each_adapted_layer_by_itself_changes_the_memory_and_gets_a_gradient(cell):
    """A cell that read `weight` instead of calling its layer would ignore the adapter without a word."""
    model = adapted(tiny_model(cell))
    before = memory_after(tiny_model(cell))
    layers = cell_layers(model)
    for name, layer in layers.items():
        for other in layers.values():
            other.scaling["default"] = 0.0
        layer.scaling["default"] = 1.0
        assert (memory_after(model) - before).abs().max() > 1e-3, name
    for layer in layers.values():
        layer.scaling["default"] = 1.0
    ids = byte_ids(TEXT)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        assert not parameter.requires_grad or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_a_saved_adapter_loads_and_merges_to_the_same_logits(cell, tmp_path):
    from peft import AutoPeftModelForCausalLM, PeftModel

    base = save_checkpoint(tmp_path / "base", tiny_model(cell))
    model = adapted(SMTForCausalLM.from_pretrained(base))
    ids = byte_ids(TEXT)
    expected = model(input_ids=ids).logits
    plain = tiny_model(cell)(input_ids=ids).logits
    assert (expected - plain).abs().max() > 1e-2
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(SMTForCausalLM.from_pretrained(base), tmp_path / "adapter")
    torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=0, atol=1e-6)
    automatic = AutoPeftModelForCausalLM.from_pretrained(
        tmp_path / "adapter", import_allowlist=["smt_hf.models.modeling_smt"]
    )
    torch.testing.assert_close(automatic(input_ids=ids).logits, expected, rtol=0, atol=1e-6)
    loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = SMTForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-5)
    greedy = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(loaded.generate(input_ids=ids, **greedy), automatic.generate(input_ids=ids, **greedy))


def prompt_configs() -> dict[str, Any]:
    from peft import CPTConfig, MultitaskPromptTuningConfig, PromptEncoderConfig, PromptTuningConfig

    common: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    cpt: dict[str, Any] = {"cpt_token_ids": [1, 2, 3], "cpt_mask": [1] * 3, "cpt_tokens_type_mask": [1] * 3}
    return {
        "prompt tuning": PromptTuningConfig(**common),
        "p-tuning": PromptEncoderConfig(**common, encoder_hidden_size=8),
        "multitask": MultitaskPromptTuningConfig(**common, num_tasks=2, num_ranks=1),
        "context-aware": CPTConfig(task_type="CAUSAL_LM", **cpt),
    }


@pytest.mark.parametrize("name", ["prompt tuning", "p-tuning", "multitask", "context-aware"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_prompt_of_embeddings_is_tuned_and_generated_from(cell, name):
    from peft import get_peft_model

    model: Any = get_peft_model(tiny_model(cell, eos_token_id=None), prompt_configs()[name])
    ids = torch.cat([byte_ids(TEXT), byte_ids(TEXT).flip(1)])
    mask = torch.ones_like(ids)
    tasks = {"task_ids": torch.tensor([0, 1])} if name == "multitask" else {}
    if name != "context-aware":  # its loss wants to be told the kind of every token
        model.train()(input_ids=ids, attention_mask=mask, labels=ids, **tasks).loss.backward()
        tuned = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        assert tuned and all("prompt" in n for n, _ in tuned)
        assert any(p.grad is not None and p.grad.abs().max() > 0 for _, p in tuned)
    model.eval()
    found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=20, do_sample=False, **tasks)
    for length in range(ids.shape[1], found.shape[1]):
        read = found[:, :length]
        logits = model(input_ids=read, attention_mask=torch.ones_like(read), **tasks).logits[:, -1]
        assert torch.equal(found[:, length], logits.argmax(-1))


# peft says that it takes the state by its name before transformers 5.24.
@pytest.mark.filterwarnings("ignore:.*past_key_values.*")
@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_of_keys_and_values_is_refused_in_one_sentence(projection):
    from peft import PrefixTuningConfig, get_peft_model

    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=projection, encoder_hidden_size=8
    )
    model: Any = get_peft_model(tiny_model("gru"), config)
    ids = byte_ids(TEXT)
    for call in (
        lambda: model(input_ids=ids),
        lambda: model(input_ids=ids, labels=ids),
        lambda: model.generate(input_ids=ids, max_new_tokens=2),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert "no keys and values" in str(error.value) and "\n" not in str(error.value)
