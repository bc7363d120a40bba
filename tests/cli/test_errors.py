"""Errors of the machine and of other libraries end in one sentence; faults of ours stay tracebacks."""

import argparse
import json
import os

import pytest
import torch
import warm
from safetensors import SafetensorError
from tiny_commands import TINY, one_line, write_corpus

import smt_hf
from smt_hf.cli import main
from smt_hf.cli.errors import explained, in_flags


def json_error() -> Exception:
    try:
        json.loads("")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("I/O error: No space left on device (os error 28)"),
        Exception("expected value at line 1 column 1"),  # as `tokenizers` has it
        json_error(),
        EOFError("Compressed file ended before the end-of-stream marker was reached"),
        OSError(28, "No space left on device"),
        UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid continuation byte"),
        OverflowError("Python int too large to convert to C long"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_names_no_file_is_told_with_the_files_of_the_command(error, tmp_path):
    said = explained(error, argparse.Namespace(model=str(tmp_path), seed=1, lengths=[3]), {})
    assert said is not None and str(tmp_path) in said and str(error) in said and "\n" not in said


@pytest.mark.parametrize("sizes", [(10**15,), (2**62, 8), (2**63,)])
def test_sizes_that_no_machine_has_are_told_as_a_matter_of_memory(sizes):
    with pytest.raises((RuntimeError, TypeError)) as error:
        torch.empty(*sizes)
    said = explained(error.value, argparse.Namespace(), {})
    assert said is not None and "memory" in said and "\n" not in said


@pytest.mark.parametrize("error", [AssertionError("x"), KeyError("x"), RuntimeError("x"), AttributeError("x")])
def test_a_fault_of_ours_is_not_explained_away(error):
    assert explained(error, argparse.Namespace(), {}) is None


def test_fields_are_told_as_flags_and_nothing_else_is_changed():
    flags = {"max_steps": "--max-steps", "seed": "--seed"}
    assert in_flags("max_steps is 0.", flags) == "--max-steps is 0."
    assert in_flags("seed is -1; another seed is 2.", flags) == "--seed is -1; another seed is 2."
    for text in ("runs/max_steps/x.txt is gone", "'max_steps' is gone", "max_steps.txt is gone", "a seed of 1"):
        assert in_flags(text, flags) == text


def test_settings_of_a_file_keep_their_names(tmp_path, capfd):
    (tmp_path / "run.yaml").write_text("learning_rate: .nan\nmax_steps: 2\n")
    assert main(["pretrain", "--config", str(tmp_path / "run.yaml"), "--output-dir", "x"]) == 2
    assert "learning_rate is nan" in one_line(capfd.readouterr().err)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 0
    assert "pretrain" in capsys.readouterr().out


def test_it_tells_its_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"smt-hf {smt_hf.__version__}\n"


NUMBERS = {
    "quickstart": ["--scale", "--seed"],
    "generate": ["--temperature", "--top-p", "--top-k", "--max-new-tokens", "--seed"],
    "evaluate": ["--horizon", "--max-tokens", "--lengths"],
    "benchmark": ["--parameters", "--tokens", "--repeats", "--threads", "--context"],
    "serve": ["--port", "--max-tokens", "--max-prompt", "--max-seconds"],
    "experiment": ["--seeds", "--lengths", "--max-minutes", "--bptt-learning-rates"],
}
REST = {
    "generate": ["x", "--prompt", "a"],
    "evaluate": ["x"],
    "benchmark": ["decode"],
    "serve": ["x"],
    "experiment": ["retrieval"],
}


@pytest.mark.parametrize(("command", "flag"), [(c, flag) for c, flags in NUMBERS.items() for flag in flags])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", str(10**30)])
def test_numbers_that_are_none_are_refused_before_any_work(command, flag, value, tmp_path, capfd, monkeypatch):
    if value == str(10**30) and flag in ("--scale", "--temperature", "--horizon", "--max-tokens", "--tokens"):
        pytest.skip("as good as any large number")
    if value == str(10**30) and flag in ("--max-minutes", "--bptt-learning-rates"):
        pytest.skip("as good as any large number")
    if value == str(10**30) and flag in ("--lengths", "--context", "--repeats"):
        pytest.skip("refused where the data is known, or takes as long as it was told to")
    monkeypatch.chdir(tmp_path)
    words = [command, *REST.get(command, []), f"{flag}={value}"]
    try:
        code = main(words)
    except SystemExit as stop:  # a word that is no whole number
        code = int(str(stop.code))
    assert code == 2
    assert flag in one_line(capfd.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_shows_ascii_only_does_not_end_a_run(tmp_path):
    """A curly quote, a dash or a model's own answer may not be printable there."""
    corpus = write_corpus(tmp_path / "lines.txt")
    program = "import sys; from smt_hf.cli import main; sys.exit(main() or main(['compare', 'é']))"
    words = [*TINY, "--max-steps", "2", "--dataset", corpus, "--output-dir", "é"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = warm.run(program, "pretrain", *words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "?: gru by smt" in done.stdout and "%" not in done.stderr


def test_names_are_no_markup(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "q[/z] a[bold]b :smile:"
    corpus = write_corpus(tmp_path / f"{name.replace('/', '∕')}.txt")
    words = [*TINY, "--max-steps", "2", "--checkpoint-every", "0", "--dataset", corpus, "--output-dir", name]
    assert main(["pretrain", *map(str, words)]) == 0
    capfd.readouterr()
    assert main(["compare", name]) == 0
    assert name.replace("/", "∕") in capfd.readouterr().out.replace("\n", "")
