"""lm-eval's three kinds of request give what a plain loop over the text gives, at any batch size, offline."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_checkpoints import needs, save_checkpoint, tiny_model

from smt_hf import SMTForCausalLM
from smt_hf.data import byte_tokenizer

pytestmark = needs("lm_eval")

DOCUMENTS: list[dict[str, Any]] = [
    {"text": "A short line.", "choices": ["a b", "cd"], "gold": 0},
    {"text": "Another and somewhat longer line of text:", "choices": ["x", "yes it is"], "gold": 1},
    {"text": "Third", "choices": ["one", "é"], "gold": 1},
]
LONG = "This text is longer than the limit that lm-eval assumes. " * 38  # 2,166 bytes
START = 256  # bos: what lm-eval puts before a text that has no context


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("lm_eval"), tiny_model())


@pytest.fixture
def model(checkpoint: Path) -> SMTForCausalLM:
    return SMTForCausalLM.from_pretrained(checkpoint).eval()


def harness(checkpoint: Path, **options: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(checkpoint), device="cpu", **options)


def tasks() -> list[dict[str, Any]]:
    """One task of each kind over the documents above, as the YAML files of tasks would say it."""
    from datasets import Dataset

    kinds: list[dict[str, Any]] = [
        {
            "task": "choice",
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        },
        {
            "task": "rolling",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        {
            "task": "generation",
            "output_type": "generate_until",
            "doc_to_target": "{{text}}",
            "generation_kwargs": {"max_gen_toks": 12, "do_sample": False, "until": ["\n"]},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    ]
    return [
        {
            "custom_dataset": lambda **_: {"test": Dataset.from_list(DOCUMENTS)},
            "test_split": "test",
            "doc_to_text": "{{text}}",
            "num_fewshot": 0,
            **kind,
        }
        for kind in kinds
    ]


@torch.no_grad()
def log_probability(model: SMTForCausalLM, context: list[int], continuation: list[int]) -> float:
    """Σ log p(token | all before it), one token at a time through the state."""
    total, state, logits = 0.0, None, torch.empty(0)
    for i, token in enumerate(context + continuation):
        if i >= len(context):
            total += logits[0, -1].log_softmax(-1)[token].item()
        out = model(torch.tensor([[token]]), cache=state, use_cache=True)
        state, logits = out.cache, out.logits
    return total


@torch.no_grad()
def greedy(model: SMTForCausalLM, text: str, num_tokens: int) -> str:
    ids = torch.tensor([list(text.encode())])
    for _ in range(num_tokens):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    new: list[int] = ids[0, len(text.encode()) :].tolist()
    new = new[: new.index(START)] if START in new else new
    decoded: Any = byte_tokenizer().decode(new, skip_special_tokens=True)
    return decoded.split("\n")[0]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_three_kinds_of_request_give_what_a_plain_loop_gives(checkpoint, model, batch_size):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    result = simple_evaluate(
        model=harness(checkpoint, batch_size=batch_size),
        tasks=tasks(),
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    nats = num_bytes = 0.0
    for i, document in enumerate(DOCUMENTS):
        text, samples = document["text"], result["samples"]
        for choice, ((answer, _),) in zip(document["choices"], samples["choice"][i]["resps"], strict=True):
            expected = log_probability(model, list(text.encode()), list(f" {choice}".encode()))
            assert answer == pytest.approx(expected, abs=1e-3)
        expected = log_probability(model, [START], list(text.encode()))
        assert samples["rolling"][i]["resps"][0][0] == pytest.approx(expected, abs=1e-3)
        assert samples["generation"][i]["resps"] == [[greedy(model, text, 12)]]
        nats, num_bytes = nats - expected, num_bytes + len(text.encode())
    measured = result["results"]["rolling"]["bits_per_byte,none"]
    assert measured == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)


def test_a_text_beyond_the_assumed_limit_is_read_whole_only_if_max_length_says_so(checkpoint, model):
    """Without it every 2,048 tokens begin anew: a figure for another model than this."""
    from lm_eval.api.instance import Instance

    def rolling(lm: Any) -> float:
        request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(LONG,), idx=0)
        return lm.loglikelihood_rolling([request], disable_tqdm=True)[0]

    whole = log_probability(model, [START], list(LONG.encode()))
    assert harness(checkpoint).max_length == 2048
    assert abs(rolling(harness(checkpoint)) - whole) > 0.1
    assert rolling(harness(checkpoint, max_length=65536)) == pytest.approx(whole, rel=1e-5)


def test_the_documented_command_gives_the_same_figure_without_importing_the_package(
    checkpoint, model, tmp_path
):
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in (LONG, "Short.")))
    task = {
        "task": "texts", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "output_type": "loglikelihood_rolling", "doc_to_text": "",
        "doc_to_target": "{{text}}", "metric_list": [{"metric": "bits_per_byte"}],
    }  # fmt: skip
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump(task))
    words = (
        f"run --tasks texts --include_path {tmp_path} --model hf --batch_size 8 --device cpu --seed 0 "
        f"--model_args pretrained={checkpoint},trust_remote_code=True,max_length=65536 "
        f"--output_path {tmp_path / 'results'}"
    )
    run = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words.split()],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "LMEVAL_LOG_LEVEL": "ERROR"},
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (report,) = (tmp_path / "results").rglob("results_*.json")
    nats = -sum(log_probability(model, [START], list(text.encode())) for text in (LONG, "Short."))
    expected = nats / math.log(2) / (len(LONG) + len("Short."))
    measured = json.loads(report.read_text())["results"]["texts"]["bits_per_byte,none"]
    assert measured == pytest.approx(expected, rel=1e-5)
