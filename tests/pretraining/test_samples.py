"""Samples for the card: of validation text, the same every time, and without a trace on the training."""

import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import byte_tokenizer, load_windows
from smt_hf.data.tasks import make_task
from smt_hf.pretraining.samples import PROMPT_TOKENS, SAMPLES, sample_texts, texts_for_card


def tiny_model(vocab_size: int) -> SMTForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    return SMTForCausalLM(SMTConfig(vocab_size=vocab_size, **sizes))  # type: ignore[arg-type]


def test_samples_continue_validation_text_and_leave_no_trace(tmp_path):
    text = "".join(f"Line {i} says that {i} and {i + 1} are {2 * i + 1}.\n" for i in range(400))
    (tmp_path / "lines.txt").write_text(text)
    tokenizer = byte_tokenizer()
    _, validation = load_windows(str(tmp_path / "lines.txt"), tokenizer, sequence_length=40)
    model = tiny_model(len(tokenizer)).train()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    samples = sample_texts(model, tokenizer, validation)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert len(samples) == len({sample["prompt"] for sample in samples}) == SAMPLES
    assert all(sample["prompt"] in text and len(sample["prompt"]) == PROMPT_TOKENS for sample in samples)
    assert all(sample["continuation"] for sample in samples)
    torch.manual_seed(8)
    assert sample_texts(model, tokenizer, validation) == samples
    with torch.no_grad():
        model.lm_head.weight.neg_()
    assert sample_texts(model, tokenizer, validation) != samples


def test_there_are_none_of_a_task_or_without_a_tokenizer():
    model = tiny_model(20)
    assert sample_texts(model, None, None) == [] and sample_texts(model, byte_tokenizer(), None) == []


def test_a_task_gives_a_prompt_in_its_own_symbols_and_text_gives_none():
    task = make_task("recall", 24, "validation")
    texts = texts_for_card(tiny_model(task.vocab_size), task.tokenizer(), task)
    assert texts["samples"] == []
    assert task.tokenizer()(texts["prompt"])["input_ids"] == task[0]["input_ids"][:4].tolist()
    assert texts_for_card(tiny_model(20), None, None) == {"prompt": "", "samples": []}
