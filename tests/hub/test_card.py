# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""The model card: metadata that the Hub reads, and the figures of the run's own record."""

import ast
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from handmade_record import a_record
from huggingface_hub import ModelCard
from tiny_run import make_run, python_of

from smt_hf.hub.card import write_card
from smt_hf.hub.push import address_snippets
from smt_hf.runs.record import RunRecord

LN2 = math.log(2)


def record(**changes: Any) -> RunRecord:
    by_horizon = [
        {"start": 0, "end": 32, "loss": 2.75 * LN2, "accuracy": 0.4},
        {"start": 32, "end": 256, "loss": 2.5 * LN2, "accuracy": 0.5},
    ]
    values: dict[str, Any] = {
        "status": "finished",
        "method": "smt",
        "cell": "gru",
        "dataset": "python-docs",
        "data_kind": "text",
        "data_fingerprint": "0123456789abcdef",
        "bytes_per_token": 1.0,
        "sequence_length": 160,
        "parameters": 821_376,
        "state_bytes": 2048,
        "model": {"num_hidden_layers": 2, "num_readout_layers": 3, "hidden_size": 64},
        "seed": 7,
        "seconds": 421.3,
        "steps": 1234,
        "tokens": 5_678_901,
        "sequential_steps": 43_210,
        "machine": "2 CPU cores (x86_64)",
        "git_commit": "deadbeef",
        "versions": {"python": "3.11.2", "torch": "2.13.0", "datasets": None},
        "output_dir": "runs/verse-rnn",
        "command": ["smt-hf", "pretrain", "--dataset", "my texts", "--cell", "gru"],
        "final": {"loss": 2.6 * LN2, "accuracy": 0.45, "targets": 4096, "by_horizon": by_horizon},
        **changes,
    }
    return a_record(**values)


TASK = {
    "dataset": "retrieval",
    "data_kind": "task",
    "bytes_per_token": None,
    "sequence_length": 64,
    "prompt": "n0 <|marker|> 5 n2",
    "final": {"loss": 0.01, "accuracy": 0.9961, "targets": 1024, "by_horizon": []},
}


def card(folder: Path, **changes: Any) -> Any:  # ModelCard declares its `data` too widely
    write_card(folder, record(**changes))
    assert [path.name for path in folder.iterdir()] == ["README.md"]
    return ModelCard.load(folder / "README.md")


def test_the_hub_can_read_the_metadata(tmp_path):
    data = card(tmp_path).data.to_dict()
    assert data["license"] == "apache-2.0" and data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation" and data["language"] == "en"
    assert {"smt", "gru"} <= set(data["tags"])
    assert "language" not in card(tmp_path, **TASK).data.to_dict()


def test_the_card_holds_the_command_as_one_would_type_it(tmp_path):
    text = card(tmp_path).text
    assert "smt-hf pretrain --dataset 'my texts' --cell gru" in text
    (block,) = re.findall(r"^```\n(smt-hf .*)\n```$", text, re.MULTILINE)
    assert shlex.split(block) == record().command


def test_the_card_holds_the_figures_of_the_record(tmp_path):
    text = card(tmp_path).text
    for figure in (
        "821,376 parameters",
        "2,048 bytes",
        "| 0–32 | 2.750 |",
        "| 32–256 | 2.500 |",
        "| all 4,096 targets | 2.600 |",
        "421 s, 1,234 steps, 5,678,901 tokens",
        "43,210",
        "0123456789abcdef",
        "seed: 7",
        "deadbeef",
        "2 CPU cores",
        "torch 2.13.0",
        "gru on python-docs, by SMT",
    ):
        assert figure in text, figure
    assert "datasets None" not in text


def test_bits_per_byte_of_the_card_count_the_bytes_of_a_token(tmp_path):
    assert "| 0–32 | 0.688 |" in card(tmp_path, bytes_per_token=4.0).text


def test_the_state_stays_while_the_cache_of_a_transformer_grows(tmp_path):
    """2 (keys and values) · 4 bytes · tokens · 5 layers · 64 wide."""
    text = card(tmp_path).text
    assert "| 1,000 | 2,048 bytes | 2.56 MB |" in text
    assert "| 1,000,000 | 2,048 bytes | 2.56 GB |" in text


def test_a_task_reports_its_accuracy_and_length(tmp_path):
    text = card(tmp_path, **TASK).text
    assert "Accuracy 0.9961 on 1,024 answers in unseen sequences of length 64" in text
    assert "bits per byte" not in text


def test_a_run_by_bptt_says_so(tmp_path):
    text = card(tmp_path, method="bptt").text
    assert "trained on `python-docs` by backpropagation through time." in text and "by BPTT" in text


def test_a_run_that_ends_with_bptt_does_not_claim_to_be_without_it(tmp_path):
    phases = [{"name": "smt"}, {"name": "dmt"}]
    assert "without backpropagation through time" in card(tmp_path, phases=phases).text
    text = card(tmp_path, phases=[*phases, {"name": "bptt"}]).text
    assert "SMT, then DMT), and at the end by backpropagation through time" in text
    assert "without backpropagation through time" not in text


def test_a_run_whose_dmt_goes_back_several_steps_does_not_claim_to_be_without_it_either(tmp_path):
    text = card(tmp_path, spec={"dmt_gradient_steps": 8}).text
    assert "SMT, then DMT with gradients through 8 steps of the cell)." in text
    assert "without backpropagation through time" not in text


def test_a_run_without_dmt_does_not_claim_it(tmp_path):
    text = card(tmp_path, phases=[{"name": "smt"}], spec={"dmt_gradient_steps": 8}).text
    assert "(SMT alone): without backpropagation through time." in text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["bptt"], "It was trained on `python-docs` by backpropagation through time."),
        (["trunk"], "It was trained on `python-docs` not yet: its teacher's trunk alone was."),
        (["trunk", "smt", "dmt"], "(its teacher's trunk first, SMT, then DMT): without backpropagation"),
        (["dmt"], "(DMT alone): without backpropagation"),
    ],
)
def test_a_card_names_the_phases_that_the_run_had(tmp_path, names, said):
    phases = [{"name": name, "start": 0.0, "end": 1.0, "learning_rate": 1e-3} for name in names]
    assert said in " ".join(card(tmp_path, phases=phases).text.split())


@pytest.mark.parametrize(
    ("method", "spec", "said"),
    [
        ("bptt", {"teacher_weight": 0.5}, "0.5 of the readout's loss is the distance to what it expects of"),
        ("smt", {"teacher_weight": 0, "encoder_type": "given"}, "a linear map of its hidden states makes the"),
        ("smt", {"teacher_weight": 1, "encoder_type": "given"}, "1 of the readout's loss is the distance to"),
        ("smt", {"teacher_weight": 0, "teacher_embeddings": True}, "embedding and head started from its own,"),
    ],
)  # fmt: skip
def test_a_card_tells_what_a_given_model_taught(tmp_path, method, spec, said):
    found = card(
        tmp_path, method=method, spec={"teacher": "/home/me/llama", **spec}, teacher_fingerprint="ab12"
    )
    text = " ".join(found.text.split())
    assert f"The language model `llama` taught it: {said}" in text and "/home/me" not in text
    assert "given teacher's fingerprint: ab12" in text


def test_a_card_without_a_given_model_names_none(tmp_path):
    assert "taught it:" not in card(tmp_path, spec={"teacher_weight": 0.5}).text


def test_a_run_without_evaluation_says_so(tmp_path):
    assert "Not evaluated" in card(tmp_path, final={}).text


def test_the_usage_shown_for_a_pushed_model_loads_it_from_its_repository(tmp_path):
    folder = tmp_path / "gru"
    folder.mkdir()
    text = card(folder, spec={"hub_model_id": "me/verse-rnn"}).text
    assert 'AutoModelForCausalLM.from_pretrained("me/verse-rnn")' in text


def test_without_a_repository_the_usage_names_the_folder_of_the_run(tmp_path):
    text = card(tmp_path).text
    assert text.count('from_pretrained("verse-rnn"') == 4  # model and tokenizer, with our package and without


def test_the_headline_result_is_where_the_hub_looks_for_it(tmp_path):
    (result,) = card(tmp_path).data.eval_results
    assert (result.metric_type, result.metric_value) == ("bits_per_byte", 2.6)
    (result,) = card(tmp_path, bytes_per_token=2.0).data.eval_results
    assert result.metric_value == 1.3
    data = card(tmp_path, **TASK).data
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.9961) and data.metrics == ["accuracy"]
    assert data.model_name == "gru on retrieval, by SMT"
    assert card(tmp_path, final={}).data.eval_results is None


@pytest.mark.parametrize(
    ("dataset", "on_the_hub"),
    [
        ("roneneldan/TinyStories", "roneneldan/TinyStories"),
        ("Salesforce/wikitext:wikitext-2-raw-v1", "Salesforce/wikitext"),
        ("python-docs", None),
        ("texts/verse.txt", None),
    ],
)
def test_data_of_the_hub_are_linked_and_others_are_not(tmp_path, monkeypatch, dataset, on_the_hub):
    """A path looks like the name of a data set of the Hub; that it is there tells."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "verse.txt").write_text("To be")
    (tmp_path / "card").mkdir()
    monkeypatch.chdir(tmp_path)
    data = card(tmp_path / "card", dataset=dataset).data
    assert data.datasets == (on_the_hub and [on_the_hub])
    (result,) = data.eval_results
    assert on_the_hub in (None, result.dataset_type)
    assert "texts/verse.txt" not in str(data.to_dict())


def test_the_result_names_the_configuration_and_the_split_that_were_judged(tmp_path):
    wikitext = card(
        tmp_path, dataset="Salesforce/wikitext:wikitext-2-raw-v1", spec={"validation_split": "test"}
    )
    (result,) = wikitext.data.eval_results
    assert (result.dataset_config, result.dataset_split) == ("wikitext-2-raw-v1", "test")
    (result,) = card(tmp_path).data.eval_results
    assert (result.dataset_config, result.dataset_split) == (None, "validation")


def test_samples_are_shown_as_they_are(tmp_path):
    """Fences, markup and control characters of a sample must not become those of the card."""
    text = card(tmp_path, samples=[{"prompt": "To ```be", "continuation": "\n\n# or\x00 not"}]).text
    assert "\n    To ```be▸\n    \n    # or� not\n" in text
    assert "Samples" not in card(tmp_path).text


def test_a_cell_of_ones_own_is_said_not_to_travel(tmp_path):
    assert "Cell 'leaky' is a class of your own and does not travel" in card(tmp_path, cell="leaky").text
    assert "does not travel" not in card(tmp_path).text


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


# On machines without an accelerator, torch remarks on the Trainer's default of pinning memory.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_every_python_snippet_of_a_real_runs_card_runs(run_folder, tmp_path, monkeypatch, capsys):
    """One after the other, as a reader would paste them, where the run lies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / run_folder.name).symlink_to(run_folder)
    scope: dict[str, Any] = {}
    shown = []
    for snippet in python_of((run_folder / "README.md").read_text()):
        exec(compile(snippet, "card", "exec"), scope)
        shown.append(capsys.readouterr().out)
    assert shown[2].startswith("The ") and len(shown[2]) > 4
    assert shown[3].startswith("next ") and (tmp_path / "read.safetensors").stat().st_size < 4096
    assert scope["trainer"].state.global_step == 2


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_the_snippets_of_a_task_speak_its_symbols(tmp_path, monkeypatch, capsys):
    from smt_hf import SMTConfig, SMTForCausalLM
    from smt_hf.data import RetrievalTask

    (tmp_path / "verse-rnn").mkdir()
    text = card(tmp_path / "verse-rnn", **TASK).text
    tokenizer = RetrievalTask(64).tokenizer()
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    SMTForCausalLM(SMTConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "verse-rnn")
    tokenizer.save_pretrained(tmp_path / "verse-rnn")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for snippet in python_of(text):
        exec(compile(snippet, "card", "exec"), scope)
    assert "n0 <|marker|> 5 n2 " in capsys.readouterr().out


HOSTILE = [
    'a"); import os; ("',
    "a`b",
    "```\n# b",
    "a\\",
    "a\nb",
    "<img src=x>",
    "[a](b)",
    "a|b",
    "\x1b[31m",
    "é",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_names_in_snippets_and_in_prose(tmp_path, name):
    """Snippets are Python that holds the name as a string; no name makes a heading, a link or a tag."""
    plain = card(tmp_path, output_dir="runs/x", prompt="y", dataset="z").text
    words = {"dataset": name, "prompt": name, "command": ["smt-hf", "pretrain", "--dataset", name]}
    text = card(tmp_path, **words, spec={"hub_model_id": name}).text
    snippets = python_of(text)
    strings = [
        node.value
        for snippet in snippets
        for node in ast.walk(ast.parse(snippet))
        if isinstance(node, ast.Constant)
    ]
    assert strings.count(name) >= 4 + 3  # loaded four times, read at least three times
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", text)
    shown = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", outside)
    for mark in ("<img", "](b)", "\x1b"):
        assert mark not in shown.replace("\\[", "").replace("\\]", "").replace("\\<", "")
    headings = [line for line in outside.splitlines() if line.startswith("#")]
    assert len(headings) == len([line for line in plain.splitlines() if line.startswith("#")])
    assert address_snippets(text, record(**words, spec={"hub_model_id": name}), "me/x").count('("me/x"') == 4


def test_writing_again_replaces_the_card(tmp_path):
    write_card(tmp_path, record(seed=1))
    write_card(tmp_path, record(seed=2))
    assert "seed: 2" in (tmp_path / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
