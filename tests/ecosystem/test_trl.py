# Keyword dictionaries of mixed values.
# mypy: disable-error-code="arg-type"
"""`trl.SFTTrainer`: a packed or padding-free batch trains as its documents would, each alone."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState, GradientState
from tiny_checkpoints import byte_ids, cell_layers_pattern, needs, tiny_model

from smt_hf import SMTForCausalLM
from smt_hf.data import byte_tokenizer

pytestmark = needs("trl")

DOCUMENTS = ("The first one.", "A", "Once more, with more words.", "End", "Yet another, of middling length")
BATCHES: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "max_length": 48},
    "packed and checkpointed": {"packing": True, "max_length": 48, "activation_checkpointing": True},
    "padding-free": {"padding_free": True, "max_length": None},
    "padded": {"max_length": None},
}


@pytest.fixture(autouse=True)
def no_state_left_behind() -> Iterator[None]:
    """Accelerate remembers the first Trainer of a process, and refuses another precision."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def sft_trainer(folder: Path, model: Any, peft_config: Any = None, **changes: Any) -> Any:
    """One step of plain SGD on all documents at once, so that weights show the gradient."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    options: dict[str, Any] = dict(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=8, per_device_eval_batch_size=8,
        learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, bf16=False,
        activation_checkpointing=False, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
        logging_steps=1, dataloader_pin_memory=False,
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": [list(text.encode()) for text in DOCUMENTS]})
    return SFTTrainer(
        model=model, args=SFTConfig(**{**options, **changes}), train_dataset=data, eval_dataset=data,
        processing_class=byte_tokenizer(), peft_config=peft_config,
    )  # fmt: skip


def loss_of_the_documents_alone(model: SMTForCausalLM) -> torch.Tensor:
    """Cross-entropy per target over documents that were read one by one, each from the empty memory."""
    losses = []
    for ids in map(byte_ids, DOCUMENTS):
        if ids.shape[1] > 1:  # a single token has nothing to predict
            losses.append(F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_a_step_is_that_of_the_documents_alone(tmp_path, cell, kind):
    model, twin = tiny_model(cell), tiny_model(cell).train()
    trainer = sft_trainer(tmp_path, model, **BATCHES[kind])
    seen: list[dict[str, Any]] = []
    model.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    trainer.train()
    loss = loss_of_the_documents_alone(twin)
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-4)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert theirs.grad is not None, name
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad, rtol=1e-4, atol=1e-6)
    rows = 5 if kind == "padded" else 1
    assert seen[0]["input_ids"].shape[0] == rows  # what was flattened really came as one row
    assert ("seq_idx" in seen[0]) == (kind != "padded")


def test_the_packed_evaluation_loss_is_that_of_the_documents_alone_and_leaking_would_show(tmp_path):
    model = tiny_model()
    trainer = sft_trainer(tmp_path, model, **BATCHES["packed"])
    with torch.no_grad():
        alone = loss_of_the_documents_alone(model).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(alone, abs=1e-5)
    forward = model.model.forward
    said = ("position_ids", "seq_idx", "cu_seq_lens_q")  # each of them tells where documents begin

    def leaking(*args, **kwargs):
        return forward(*args, **{name: value for name, value in kwargs.items() if name not in said})

    model.model.forward = leaking
    assert abs(trainer.evaluate()["eval_loss"] - alone) > 1e-3


@pytest.mark.skipif(find_spec("peft") is None, reason="peft not installed")
def test_adapters_train_on_packed_rows_and_the_model_beneath_stays(tmp_path):
    from peft import LoraConfig

    model, twin = tiny_model(), tiny_model()
    adapters = LoraConfig(r=2, target_modules=cell_layers_pattern())
    trainer = sft_trainer(tmp_path, model, adapters, **BATCHES["packed"], max_steps=30)
    trainer.train()
    first, *_, last = (line["loss"] for line in trainer.state.log_history if "loss" in line)
    assert last < first - 0.05
    trained = trainer.model.merge_and_unload()
    for (name, ours), theirs in zip(trained.named_parameters(), twin.parameters(), strict=True):
        adapted = ".cell." in name and name.endswith("weight")
        assert torch.equal(ours, theirs) != adapted, name
