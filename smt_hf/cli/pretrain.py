"""Pretrain a recurrent language model: SMT then DMT, or BPTT, and write a run folder."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smt_hf.runs.spec import FIELDS

from .flags import add_fields, given_fields, held_values, preset_help
from .network import ask_for_data


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """words: of the command line; the help shows what holds under its preset, cell and file."""
    parser.usage = (
        "%(prog)s --output-dir DIR (--max-minutes N | --max-steps N) [--config FILE] [--resume] [settings]"
    )
    parser.epilog = f"Presets. {preset_help()}."
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file of settings, or a run.json; flags win"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last whole checkpoint of the run; the budget may be longer than it was",
    )
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

    spec = spec_of(args)
    ask_for_data(spec.dataset, spec.tokenizer, spec.image_column, spec.teacher)
    trainer = build(spec, ["smt-hf", *args.words])
    try:
        record = trainer.train(resume=args.resume)
    except Interrupted as stop:
        if trainer.accelerator.num_processes > 1:  # the first to end makes torchrun stop the others
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if trainer.accelerator.is_main_process:
            several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
            how = "Go on, on each machine with its own torchrun options too, with" if several else "Go on with"
            print(f"stopped; saved {stop}. {how}:\n  {shlex.join(command_to_resume(args.words))}", flush=True)
        return stop.exit_code
    if trainer.accelerator.is_main_process:
        print(summary(record))
    return 0


def command_to_resume(words: Sequence[str]) -> list[str]:
    """The command line that goes on with a run, under torchrun if it was started so."""
    own = [*(word for word in words if word != "--resume"), "--resume"]
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ["smt-hf", *own]
    start = ["torchrun", "--nproc_per_node", os.environ.get("LOCAL_WORLD_SIZE", "1")]
    return [*start, sys.argv[0], *own]


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
