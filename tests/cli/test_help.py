"""--help answers for every command: every flag, each with a text."""

import argparse
import re
import subprocess
import sys

import pytest

from smt_hf.cli import COMMANDS, build_parser, main
from smt_hf.runs.spec import FIELDS, RunSpec, flag, load_preset, preset_names


def parser_of(command: str) -> argparse.ArgumentParser:
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_flag_with_a_text(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    actions = parser_of(command)._actions
    assert len(actions) >= 2  # --help, and at least what to work on
    for action in actions:
        names = action.option_strings or [str(action.metavar or action.dest)]
        assert all(name in shown for name in names), names
        assert action.help and len(action.help) > 2 and action.help != argparse.SUPPRESS, names


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert name in shown and text.split()[0] in shown


def test_every_setting_of_a_run_has_a_flag_with_its_text():
    flags = {action.dest: action for action in parser_of("pretrain")._actions}
    for name, field in FIELDS.items():
        assert flag(name) in flags[name].option_strings
        assert str(flags[name].help).replace("%%", "%").startswith(field.metadata["help"])


def test_flags_are_grouped():
    titles = [group.title for group in parser_of("pretrain")._action_groups if group._group_actions]
    assert {"run", "data", "budget", "optimization", "method"} <= set(titles)
    options = [group for group in parser_of("pretrain")._action_groups if group.title == "options"]
    assert [action.dest for action in options[0]._group_actions] == ["help", "config", "resume"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], "[0.002]"),
        (["--preset", "paper"], "[0.0003]"),
        (["--preset", "paper", "--cell", "transformer"], "depth of the cell [8]"),
        (["--config", "{file}"], "[0.125]"),
    ],
)
def test_help_shows_the_value_that_will_hold(words, shown, capsys, tmp_path):
    (tmp_path / "run.yaml").write_text("learning_rate: 0.125\n")
    with pytest.raises(SystemExit):
        main(["pretrain", *[word.format(file=tmp_path / "run.yaml") for word in words], "--help"])
    assert shown in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_needs_neither_torch_nor_transformers(command):
    """They take seconds to import. The name of the script is how the package knows that it is the command."""
    program = (
        "import sys; sys.argv = ['smt-hf', *sys.argv[1:]]\n"
        "from smt_hf.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rich', 'huggingface_hub'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    words = [word for word in (command, "--help") if word]
    subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_the_package_runs_as_a_module_and_its_help_needs_no_torch():
    words = [sys.executable, "-X", "importtime", "-m", "smt_hf", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("usage: smt-hf")
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_makes_a_run_and_is_in_the_help(name):
    RunSpec.of(preset=name, max_steps=1, output_dir="x")
    assert f"{name}: " in str(parser_of("pretrain").epilog)


def test_the_paper_preset_is_the_published_configuration():
    _, paper = load_preset("paper", "transformer")
    assert (paper["hidden_size"], paper["num_memory_tokens"], paper["num_hidden_layers"]) == (256, 16, 8)
    assert (paper["num_encoder_layers"], paper["num_readout_layers"]) == (8, 4)
    assert (paper["context_length"], paper["future_length"]) == (256, 64)
