"""--help answers for every command: every flag, each with a text."""

import argparse
import dataclasses

import pytest

from smt_hf.cli import COMMANDS, build_parser, main
from smt_hf.cli.pretrain import flag
from smt_hf.pretraining.arguments import SMTPretrainingArguments
from smt_hf.pretraining.presets import PRESETS


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


def test_every_training_argument_has_a_flag_with_the_same_text():
    """Those that are not flags of pretrain are none that a user would set by hand."""
    flags = {action.dest: action for action in parser_of("pretrain")._actions}
    for field in dataclasses.fields(SMTPretrainingArguments):
        assert field.name in flags, f"no flag for {field.name}"
        assert flag(field.name) in flags[field.name].option_strings
        assert field.metadata["help"].split(";")[0].split(" (")[0].split(",")[0][:12] in str(
            flags[field.name].help
        )


def test_flags_are_grouped():
    titles = [group.title for group in parser_of("pretrain")._action_groups if group._group_actions]
    assert {"run", "data", "budget", "optimization", "method"} <= set(titles)
    options = [group for group in parser_of("pretrain")._action_groups if group.title == "options"]
    assert [action.dest for action in options[0]._group_actions] == ["help"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_only_arguments_that_exist(name):
    preset = PRESETS[name]
    SMTPretrainingArguments("x", max_steps=1, **preset.training)
    assert name in " ".join(str(action.help) for action in parser_of("pretrain")._actions)


def test_the_paper_preset_is_the_published_configuration():
    paper = PRESETS["paper"]
    assert (paper.model["hidden_size"], paper.model["num_memory_tokens"]) == (256, 16)
    assert (paper.teacher["num_hidden_layers"], paper.model["num_readout_layers"]) == (8, 4)
    assert (paper.teacher["context_length"], paper.teacher["future_length"]) == (256, 64)
