"""`tie_word_embeddings=True`: one matrix, wherever the model goes."""

import os
from typing import Any

import pytest
import torch
import warm
from safetensors import safe_open
from tiny_models import BUILT_IN_CELLS, VOCAB, WIDTH, generate, random_ids, tiny_config, tiny_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from smt_hf import SMTForCausalLM


def tied_model(cell: str = "gru", **changes: Any) -> Any:
    return tiny_model(cell, tie_word_embeddings=True, **changes)


def is_tied(model: Any) -> bool:
    return model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_the_head_is_the_embeddings(cell):
    model, untied = tied_model(cell), tiny_model(cell)
    assert is_tied(model) and not is_tied(untied)
    assert untied.num_parameters() - model.num_parameters() == VOCAB * WIDTH
    ids = random_ids(2, 5)
    hidden = model.model(ids).last_hidden_state
    torch.testing.assert_close(model(ids).logits, hidden @ model.get_input_embeddings().weight.T)


def test_it_is_saved_once_and_loaded_tied(tmp_path):
    model, ids = tied_model(), random_ids(2, 5)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert [name for name in file.keys() if "lm_head" in name or "embed" in name] == [  # noqa: SIM118
            "model.embed_tokens.weight"
        ]
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert is_tied(loaded)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_remote_code_ties_it_too(tmp_path):
    model, ids = tied_model(), random_ids(1, 5)
    model.save_pretrained(tmp_path / "model")
    code = (
        "import sys, torch\n"
        "sys.modules['smt_hf'] = None\n"
        "from transformers import AutoModelForCausalLM\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'model')!r}, trust_remote_code=True)\n"
        "assert m.lm_head.weight is m.model.embed_tokens.weight\n"
        f"print(m(torch.tensor({ids.tolist()})).logits.sum().item())\n"
    )
    run = warm.run(code, env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")})
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == pytest.approx(model(ids).logits.sum().item(), abs=1e-3)


def test_it_stays_tied_when_the_vocabulary_grows_or_shrinks():
    model, ids = tied_model(), random_ids(1, 4) % 7
    logits = model(ids).logits
    for size in (VOCAB + 5, 7):
        model.resize_token_embeddings(size, mean_resizing=False)
        assert is_tied(model) and model.config.vocab_size == model.lm_head.out_features == size
        torch.testing.assert_close(model(ids).logits[..., :7], logits[..., :7])


def test_both_uses_of_it_give_it_a_gradient_and_training_keeps_it_tied(tmp_path):
    model, ids = tied_model().train(), random_ids(2, 6)
    untied = SMTForCausalLM(tiny_config()).train()
    missing = untied.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}, strict=False
    )
    assert missing.missing_keys == ["lm_head.weight"]
    with torch.no_grad():
        untied.lm_head.weight.copy_(model.lm_head.weight)
    for each in (model, untied):
        each(ids, labels=ids).loss.backward()
    both = untied.lm_head.weight.grad + untied.get_input_embeddings().weight.grad
    torch.testing.assert_close(model.lm_head.weight.grad, both)

    before = model.lm_head.weight.detach().clone()
    rows = [{"input_ids": row, "labels": row} for row in random_ids(4, 6)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to="none", use_cpu=True,
        save_strategy="steps", save_steps=2, disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows).train()
    assert is_tied(model) and not torch.equal(model.lm_head.weight, before)
    loaded: Any = SMTForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    assert is_tied(loaded) and torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_generate_multiplies_by_what_the_embeddings_are_now():
    model, ids = tied_model(), random_ids(1, 4)
    model.get_input_embeddings().weight.data.mul_(-1.0)
    found = generate(model, ids, max_new_tokens=20, do_sample=False)
    with torch.no_grad():
        for length in range(4, 24):
            assert found[0, length] == model(found[:, :length]).logits[0, -1].argmax()
