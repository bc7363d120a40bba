"""Flags for the fields of a `RunSpec`: their names, their help, and what was given of them."""

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from smt_hf.runs.arguments import check_fields, option
from smt_hf.runs.spec import FIELDS, RunSpec, flag, kinds_of, load_preset, preset_names


def add_number(parser: argparse.ArgumentParser, name: str, kind: type, **options: Any) -> None:
    """A flag that is a number, or several. Limits among the options are those of `option`: `check_numbers`."""
    limits = {
        limit: options.pop(limit) for limit in ("at_least", "above", "below", "at_most") if limit in options
    }
    dest = parser.add_argument(name, type=kind, **options).dest
    keep(parser, "flags", {dest: name})
    keep(parser, "numbers", {dest: (kind, limits)})


def keep(parser: argparse.ArgumentParser, name: str, values: Mapping[str, Any]) -> None:
    """Add to a mapping that stands under `name` among the arguments of a command."""
    parser.set_defaults(**{name: {**(parser.get_default(name) or {}), **values}})


def check_numbers(args: argparse.Namespace) -> None:
    """Raise ValueError for the first number that is out of the range of its flag, or no number at all."""
    for name, (kind, limits) in getattr(args, "numbers", {}).items():
        value = getattr(args, name)
        number = dataclasses.make_dataclass("Number", [(name, kind, option(dataclasses.MISSING, "", **limits))])
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                check_fields(number(one))


def add_fields(
    parser: argparse.ArgumentParser,
    names: Iterable[str],
    values: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> None:
    """One flag for each field, in groups. values: what will hold where nothing is given, for the help.

    texts: help that differs from that of the field, which speaks of training.

    Words are taken as they are: `RunSpec` reads them, and says in one sentence what is wrong with them.
    """
    groups: dict[str, Any] = {}
    names = list(names)
    keep(parser, "flags", {name: flag(name) for name in names})
    for name in names:
        field = FIELDS[name]
        title = field.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        holds = values.get(name, field.default)
        shown = "" if holds is None or not isinstance(holds, str | int | float) else f" [{holds}]"
        text = ((texts or {}).get(name, field.metadata["help"]) + shown).replace("%", "%%")
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        if bool in kinds_of(RunSpec, name):
            parser_action: Any = argparse.BooleanOptionalAction
            groups[title].add_argument(flag(name), action=parser_action, help=text, **options)
        else:
            metavar = flag(name)[2:].upper().replace("-", "_")
            groups[title].add_argument(flag(name), metavar=metavar, help=text, **options)


def given_fields(args: argparse.Namespace, names: Iterable[str] = FIELDS) -> dict[str, Any]:
    """The values of the flags that were given, as words."""
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def held_values(words: Iterable[str]) -> dict[str, Any]:
    """What holds under the preset, the cell and the file that a command line names: help shows it."""
    words = list(words)
    if not {"-h", "--help"} & set(words):
        return {}
    known = argparse.ArgumentParser(add_help=False)
    for name in ("preset", "cell", "config"):
        known.add_argument(f"--{name}")
    found, _ = known.parse_known_args(words)
    values: dict[str, Any] = {}
    if found.config and Path(found.config).is_file():
        from smt_hf.runs.record import read_config

        with suppress(ValueError):  # said when the file is used, rather than where help was asked for
            values, _ = read_config(Path(found.config))
    preset = str(found.preset or values.get("preset") or FIELDS["preset"].default)
    cell = str(found.cell or values.get("cell") or FIELDS["cell"].default)
    if preset not in preset_names():
        return values
    return {**load_preset(preset, cell)[1], **values, "preset": preset, "cell": cell}


def preset_help() -> str:
    return "; ".join(f"{name}: {load_preset(name, '')[0]}" for name in preset_names())
