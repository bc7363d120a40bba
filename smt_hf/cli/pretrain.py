"""Pretrain a recurrent language model: SMT then DMT, or BPTT, and write a run folder."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smt_hf.runs.spec import FIELDS

from .flags import add_fields, given_fields, held_values, preset_help


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """words: of the command line; the help shows what holds under its preset, cell and file."""
    parser.usage = (
        "%(prog)s --output-dir DIR (--max-minutes N | --max-steps N) [--config FILE] [--resume] [settings]"
    )
    parser.epilog = f"Presets. {preset_help()}."
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file of settings, or a run.json; flags win"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint of the run")
    add_fields(parser, FIELDS, held_values(words))


def spec_of(args: argparse.Namespace) -> Any:
    """The description of the run: the file of --config, and the flags laid over it."""
    from smt_hf.runs.record import read_config
    from smt_hf.runs.spec import make_spec, merge

    settings, preset_values = read_config(args.config) if args.config else ({}, None)
    flags = given_fields(args)
    if {"preset", "cell"} & flags.keys():  # another preset, or its values for another cell
        preset_values = None
    return make_spec(merge(settings, flags), preset_values)


def run(args: argparse.Namespace) -> int:
    from smt_hf.pretraining.assembly import build
    from smt_hf.pretraining.stops import Interrupted

    trainer = build(spec_of(args), ["smt-hf", *args.words])
    try:
        record = trainer.train(resume=args.resume)
    except Interrupted as stop:
        words = [word for word in args.words if word != "--resume"]
        print(f"stopped; saved {stop}. Go on with:\n  {shlex.join(['smt-hf', *words, '--resume'])}")
        return stop.exit_code
    if trainer.accelerator.is_main_process:
        print(summary(record))
    return 0


def summary(record: Any) -> str:
    """What a finished run has to say, in a few lines of at most 80 columns."""
    from smt_hf.evaluation.metrics import describe

    lines = [
        f"{record.output_dir}: {record.cell} by {record.method}, {record.parameters:,} parameters",
        f"  {record.seconds:.0f} s of training, {record.tokens:,} tokens, "
        f"{record.sequential_steps:,} sequential steps",
    ]
    if record.final:
        lines.append("  " + describe(record.final, record.data_kind, record.bytes_per_token))
    return "\n".join(lines)
