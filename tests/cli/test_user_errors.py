# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""Whatever a user gets wrong: exit code 2, and one line on stderr that names the value; nothing written."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from handmade_record import a_record
from tiny_commands import TINY, one_line, write_corpus

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.cli import main
from smt_hf.data import RetrievalTask, byte_tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "lines.txt")


def save_model(folder: Path, tokenizer) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    SMTForCausalLM(SMTConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "bytes", byte_tokenizer())


@pytest.fixture(scope="module")
def task_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "symbols", RetrievalTask(16).tokenizer())


def refused(capfd: pytest.CaptureFixture[str], words: list[object]) -> str:
    """Run a command that must fail, and return its one line of complaint."""
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    return one_line(capfd.readouterr().err)


def pretrain(folder: Path, *words: object) -> list[object]:
    return ["pretrain", *TINY, "--max-steps", 2, "--checkpoint-every", 0, "--output-dir", folder, *words]


PRETRAIN = {
    "unknown preset": (["--preset", "huge"], ["'huge'", "base, paper, small, text, tiny"]),
    "unknown cell": (["--cell", "gruu"], ["'gruu'", "gru, lstm", "module:Class"]),
    "a cell of no module": (["--cell", "no_such_module:Cell"], ["'no_such_module:Cell'"]),
    "a cell that its module lacks": (["--cell", "json:Cell"], ["'json'", "'Cell'"]),
    "a class that is no cell": (["--cell", "json:JSONDecoder"], ["'json:JSONDecoder'", "MemoryCell"]),
    "unknown method": (["--method", "rl"], ["'rl'", "smt, bptt"]),
    "unknown encoder type": (
        ["--encoder-type", "recurrent"],
        ["'recurrent'", "causal, projected, bidirectional, given"],
    ),
    "unknown dataset": (["--dataset", "no-such-dataset"], ["'no-such-dataset'", "retrieval"]),
    "missing file": (["--dataset", "texts/missing.txt"], ["'texts/missing.txt'", "existing file"]),
    "unknown tokenizer": (["--tokenizer", "no-such/tokenizer"], ["'no-such/tokenizer'", "'byte'"]),
    "unknown teacher": (["--teacher", "nowhere"], ["teacher 'nowhere' is no folder", "give a folder"]),
    "both budgets": (["--max-minutes", "1.5"], ["--max-steps is 2", "--max-minutes is 1.5", "exactly one"]),
    "no steps": (["--max-steps", "0"], ["--max-steps is 0"]),
    "heads that do not divide": (
        ["--num-attention-heads", "3", "--hidden-size", "32"],
        ["--hidden-size 32", "3 attention heads"],
    ),
    "tokens that do not divide": (
        ["--cell", "lstm", "--num-memory-tokens", "3"],
        ["--num-memory-tokens 3", "'lstm'", "multiple of 2"],
    ),
    "no memory": (["--num-memory-tokens", "0"], ["--num-memory-tokens is 0", "greater than 0"]),
    "no layers": (["--num-hidden-layers", "0"], ["--num-hidden-layers is 0"]),
    "no encoder": (["--num-encoder-layers", "0"], ["--num-encoder-layers is 0"]),
    "no future": (["--future-length", "0"], ["--future-length is 0"]),
    "no sequence": (["--sequence-length", "0"], ["0"]),
    "a sequence shorter than the future": (
        ["--sequence-length", "6", "--future-length", "6"],
        ["sequence", "6"],
    ),
    "a rollout that does not fit": (
        ["--rollout-length", "32", "--context-length", "32"],
        ["--rollout-length 32", "at most 31"],
    ),
    "a batch that does not divide": (
        ["--batch-size", "6", "--gradient-accumulation-steps", "4"],
        ["--batch-size 6", "4 accumulation steps"],
    ),
    "a fraction above 1": (["--dmt-fraction", "1.5"], ["--dmt-fraction is 1.5"]),
    "a task of absurd sizes": (["--dataset", f"retrieval:num_values={10**12}"], ["num_values", str(10**12)]),
    "a text without splits": (["--validation-split", "test"], ["'test'", "lines.txt"]),
    "streaming a task": (["--dataset", "parity", "--streaming"], ["streaming is True", "'parity'"]),
    "no corpus bytes": (["--max-corpus-bytes", "0"], ["--max-corpus-bytes is 0"]),
    "a word for a number": (["--max-steps", "many"], ["--max-steps is 'many'", "a whole number"]),
    "no number": (["--learning-rate", "nan"], ["--learning-rate is nan", "finite"]),
    "an endless budget": (["--max-minutes", "inf"], ["--max-minutes is inf", "finite"]),
    "a momentum above 1": (["--adam-beta1", "1.5"], ["--adam-beta1 is 1.5", "less than 1"]),
    "a weight that is no number": (["--dynamics-weight", "nan"], ["--dynamics-weight is nan", "finite"]),
    "a seed beyond all": (["--seed", str(2**63 - 1)], [f"--seed is {2**63 - 1}"]),
    "a push to nowhere": (["--push-to-hub"], ["--hub-model-id"]),
    "an unknown tracker": (["--report-to", "paper-and-pen"], ["paper-and-pen"]),
    "a curriculum that starts below the task": (
        ["--dataset", "modular", "--curriculum-start-length", "4"],
        ["--sequence-length of at least 5", "it is 4"],
    ),
    "resuming nothing": (["--resume"], ["no run to resume"]),
}


@pytest.mark.parametrize("case", PRETRAIN)
def test_pretrain_refuses(case, tmp_path, corpus, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, named = PRETRAIN[case]
    data = [] if "--dataset" in words else ["--dataset", str(corpus)]
    line = refused(capfd, pretrain(tmp_path / "run", *data, *words))
    assert line.startswith("smt-hf pretrain: error: ")
    assert [text for text in named if text not in line] == [], line
    assert not (tmp_path / "run").exists()


def test_pretrain_refuses_to_run_without_a_budget(tmp_path, corpus, capfd):
    words = ["pretrain", *TINY, "--dataset", corpus, "--output-dir", tmp_path / "run"]
    assert "--max-steps is None and --max-minutes is None; give exactly one" in refused(capfd, words)


def test_pretrain_refuses_an_empty_file(tmp_path, capfd):
    path = tmp_path / "empty.txt"
    path.write_text("")
    assert str(path) in refused(capfd, pretrain(tmp_path / "run", "--dataset", path))
    assert not (tmp_path / "run").exists()


def test_pretrain_refuses_an_empty_folder(tmp_path, capfd):
    (tmp_path / "texts").mkdir()
    line = refused(capfd, pretrain(tmp_path / "run", "--dataset", tmp_path / "texts"))
    assert str(tmp_path / "texts") in line and ".txt" in line


@pytest.mark.parametrize("size", [10, 500])
def test_pretrain_refuses_a_text_too_short_for_one_window(tmp_path, capfd, size):
    path = tmp_path / "short.txt"
    path.write_text("a" * size)
    line = refused(capfd, pretrain(tmp_path / "run", "--dataset", path))
    assert str(path) in line and "--sequence-length 40" in line and "longer corpus" in line
    assert not (tmp_path / "run").exists()


def test_pretrain_refuses_a_text_too_short_to_evaluate_on_before_it_trains(tmp_path, capfd):
    """50 bytes of validation hold a window of 40 but no block of the 64 tokens that evaluations read."""
    path = tmp_path / "short.txt"
    path.write_text("ab c" * 250)
    line = refused(capfd, pretrain(tmp_path / "run", "--dataset", path, "--eval-horizon", 64))
    assert str(path) in line and "64" in line
    assert not (tmp_path / "run").exists()


def test_pretrain_refuses_a_file_that_is_not_utf_8(tmp_path, capfd):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 " * 1000)
    line = refused(capfd, pretrain(tmp_path / "run", "--dataset", path))
    assert str(path) in line and "not UTF-8 at byte 3" in line


def test_pretrain_refuses_a_folder_in_use_and_leaves_it_alone(tmp_path, corpus, capfd):
    (tmp_path / "notes.txt").write_text("mine")
    line = refused(capfd, pretrain(tmp_path, "--dataset", corpus))
    assert str(tmp_path) in line and "not empty" in line and "--resume" in line
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--seed", "5"], ["seed 0 (now 5)"]),
        (["--cell", "elman"], ["cell 'gru' (now 'elman')"]),
        (["--hidden-size", "16"], ["--hidden-size 32 (now 16)"]),
        (["--max-corpus-bytes", "9000"], ["--max-corpus-bytes None (now 9000)"]),
    ],
)
def test_pretrain_refuses_to_resume_another_run(tmp_path, corpus, capfd, words, named):
    assert main([str(w) for w in pretrain(tmp_path / "run", "--dataset", corpus)]) == 0
    line = refused(capfd, pretrain(tmp_path / "run", "--dataset", corpus, "--resume", *words))
    assert all(text in line for text in named), line
    assert len(line) < 600


EVALUATE = {
    "horizon 0": (["--horizon", "0"], ["--horizon is 0", "at least 1"]),
    "no tokens": (["--max-tokens", "0"], ["--max-tokens is 0"]),
    "a horizon longer than the text": (["--horizon", "100000"], ["100000"]),
    "unknown dataset": (["--dataset", "no-such-dataset"], ["'no-such-dataset'"]),
    "missing file": (["--dataset", "texts/missing.txt"], ["'texts/missing.txt'"]),
    "a task too short": (["--dataset", "retrieval", "--sequence-length", "2"], ["--sequence-length", "2"]),
    "a size that the task lacks": (["--dataset", "copy:size=2"], ["'copy'", "'size'", "num_values"]),
    "a task of absurd sizes": (["--dataset", f"retrieval:num_values={10**12}"], ["num_values", str(10**12)]),
    "two splits": (["--split", "a", "--validation-split", "b"], ["--split a", "--validation-split b"]),
    "a split of a text": (["--split", "test"], ["lines.txt", "'test'"]),
    "grey levels of a text": (["--grey-levels", "4"], ["--grey-levels is 4", "lines.txt"]),
    "a length of a text": (["--sequence-length", "8"], ["sequence-length 8", "--horizon"]),
    "a horizon of a task": (["--dataset", "retrieval", "--horizon", "5"], ["--horizon", "--sequence-length"]),
    "a horizon of images": (["--dataset", "digits", "--horizon", "5"], ["--horizon", "'digits'"]),
    "less than a horizon": (["--horizon", "200", "--max-tokens", "10"], ["--horizon 200", "--max-tokens 10"]),
    "lengths of images": (["--dataset", "digits", "--lengths", "9"], ["--lengths", "--sequence-length"]),
    "lengths of a text": (["--lengths", "32"], ["--lengths", "lines.txt", "--horizon"]),
    "unknown cell": (["--cell", "gruu"], ["'gruu'"]),
}


@pytest.mark.parametrize("case", EVALUATE)
def test_evaluate_refuses(case, tmp_path, model, corpus, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, named = EVALUATE[case]
    data = [] if "--dataset" in words else ["--dataset", str(corpus)]
    line = refused(capfd, ["evaluate", model, *data, *words])
    assert line.startswith("smt-hf evaluate: error: ")
    assert [text for text in named if text not in line] == [], line


def test_evaluate_refuses_a_text_that_the_models_symbols_cannot_spell(task_model, corpus, capfd):
    assert str(task_model) in refused(capfd, ["evaluate", task_model, "--dataset", corpus])


@pytest.mark.parametrize("name", ["copy", "retrieval:num_values=4"])
def test_evaluate_refuses_a_task_of_other_symbols(task_model, capfd, name):
    """Fewer ids than the model knows, so they would all be read, and mean something else."""
    line = refused(capfd, ["evaluate", task_model, "--dataset", name])
    assert repr(name) in line and str(task_model) in line and "own task" in line


def test_evaluate_refuses_a_length_that_the_task_cannot_have(task_model, capfd):
    line = refused(capfd, ["evaluate", task_model, "--dataset", "retrieval", "--lengths", 32, 3])
    assert "at least 4" in line and "it is 3" in line


def test_evaluate_refuses_token_ids_outside_the_vocabulary(tmp_path, corpus, capfd):
    """A byte tokenizer beside a model of eleven symbols, as after mixing two folders up."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    SMTForCausalLM(SMTConfig(vocab_size=11, **sizes)).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    line = refused(capfd, ["evaluate", tmp_path, "--dataset", corpus])
    assert "258 token ids" in line and "11" in line and "vocabulary" in line


GENERATE = {
    "temperature below 0": (["--prompt", "a", "--temperature", "-0.5"], ["--temperature is -0.5"]),
    "empty prompt": (["--prompt", ""], ["--prompt is empty"]),
    "no new tokens": (["--prompt", "a", "--max-new-tokens", "0"], ["--max-new-tokens is 0"]),
    "negative top-k": (["--prompt", "a", "--top-k", "-3"], ["-3"]),
    "top-p above 1": (["--prompt", "a", "--top-p", "1.5"], ["1.5"]),
}


@pytest.mark.parametrize("case", GENERATE)
def test_generate_refuses(case, model, capfd):
    words, named = GENERATE[case]
    line = refused(capfd, ["generate", model, *words])
    assert line.startswith("smt-hf generate: error: ")
    assert [text for text in named if text not in line] == [], line


def test_generate_refuses_a_symbol_that_the_task_does_not_know(task_model, capfd):
    assert "hello" in refused(capfd, ["generate", task_model, "--prompt", "hello"])


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_model_folder_that_is_missing_or_holds_no_model_is_named(tmp_path, corpus, capfd, command):
    words = ["--prompt", "a"] if command == "generate" else ["--dataset", corpus]
    for name in ("missing", "deep/er/missing"):
        line = refused(capfd, [command, tmp_path / name, *words])
        assert str(tmp_path / name) in line and "does not exist" in line
    (tmp_path / "empty").mkdir()
    assert "holds no model.safetensors" in refused(capfd, [command, tmp_path / "empty", *words])
    (tmp_path / "empty" / "run.json").write_text(json.dumps(asdict(a_record(status="running"))))
    assert "not finished" in refused(capfd, [command, tmp_path / "empty", *words])


def test_a_name_that_the_hub_does_not_give_is_named(corpus, capfd):
    assert "no-such/model" in refused(capfd, ["generate", "no-such/model", "--prompt", "a"])


def test_pickled_weights_are_refused(tmp_path, model, capfd):
    """A folder with pytorch_model.bin, and nothing else, is not read."""
    for path in model.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert "model.safetensors" in refused(capfd, ["generate", tmp_path, "--prompt", "a"])


def test_compare_refuses_a_folder_without_a_run(tmp_path, capfd):
    line = refused(capfd, ["compare", tmp_path / "missing"])
    assert line.startswith("smt-hf compare: error: ") and str(tmp_path / "missing") in line


def test_quickstart_refuses_a_folder_in_use(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("mine")
    assert str(tmp_path) in refused(capfd, ["quickstart", "--output-dir", tmp_path])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["pretrain", "--stepps", "3"], "--stepps"),
        (["evaluate", "x", "--horizont", "3"], "--horizont"),
        (["train"], "train"),
    ],
)
def test_words_that_are_no_command_line_end_in_one_line_too(words, named, capfd):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    lines = capfd.readouterr().err.splitlines()
    assert named in lines[-1]
    assert len(lines) == 1, lines


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("pretrian", "did you mean pretrain? see"),
        ("evalute", "did you mean evaluate? see"),
        ("xyz", "the commands are pretrain, evaluate, "),
    ],
)
def test_an_unknown_command_names_the_nearest(word, said, capfd):
    with pytest.raises(SystemExit) as stop:
        main([word, "--help"])
    (line,) = capfd.readouterr().err.splitlines()
    assert stop.value.code == 2 and f"there is no command {word!r}; {said}" in line


def test_evaluate_refuses_to_cut_the_corpus_of_a_run_elsewhere_than_it_did(tmp_path, corpus, capfd):
    """The end of the first 9000 bytes is no validation text: the run was trained on it."""
    assert main([str(w) for w in pretrain(tmp_path / "run", "--dataset", corpus)]) == 0
    line = refused(capfd, ["evaluate", tmp_path / "run", "--max-corpus-bytes", 9000])
    assert "9000" in line and "--max-tokens" in line


def test_a_folder_of_text_and_tables_is_refused_and_one_of_text_says_what_it_read(tmp_path, corpus, capfd):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text(corpus.read_text() + str(number))
    (texts / "notes.log").write_text("x")
    assert main([str(w) for w in pretrain(tmp_path / "run", "--dataset", texts)]) == 0
    errors = capfd.readouterr().err.splitlines()
    assert f"{texts}: reading 3 text files; leaving out 1 other file" in errors
    (texts / "data.csv").write_text("text\nx\n")
    line = refused(capfd, pretrain(tmp_path / "other", "--dataset", texts))
    assert str(texts) in line and "3 text files" in line and "1 table" in line
