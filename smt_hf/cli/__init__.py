"""smt-hf: pretrain, judge, use and share recurrent language models, from the command line.

Every command is a module with `add_arguments(parser)` and `run(args)`; heavy imports stay inside `run`,
so that --help answers at once. An error that a user can cause is printed as one line, see `errors.py`, and the
exit code is 2.
"""

import argparse
import difflib
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import smt_hf

from . import (
    benchmark,
    chat,
    compare,
    evaluate,
    experiment,
    export,
    generate,
    pretrain,
    push,
    quickstart,
    report,
    serve,
)
from .errors import explained
from .flags import check_numbers
from .loading import quiet

COMMANDS = {
    "pretrain": (pretrain, "pretrain a model by SMT and DMT, or by BPTT"),
    "evaluate": (evaluate, "measure a model free-running from a cold start"),
    "chat": (chat, "talk to a model; without one, to that of the package"),
    "generate": (generate, "continue a prompt"),
    "serve": (serve, "answer completions and chats on an OpenAI-compatible API"),
    "compare": (compare, "tabulate and plot finished runs side by side"),
    "experiment": (experiment, "run SMT and BPTT on one question, and tabulate what they find"),
    "report": (report, "print and draw the results of experiments"),
    "benchmark": (benchmark, "measure speed and memory beside other models of the same size"),
    "export": (export, "write a model for ONNX, OpenVINO or a browser"),
    "push": (push, "upload a finished run to the Hub"),
    "quickstart": (quickstart, "see a model speak, train two of your own, compare"),
}


class OneLineParser(argparse.ArgumentParser):
    """Without the usage before an error, which for 40 flags hides the error."""

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else ";"
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}{end} see {self.prog} --help\n")


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """words: those that will be parsed; the help shows what holds under them."""
    parser = OneLineParser(prog="smt-hf", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"smt-hf {smt_hf.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=module.__doc__)
        if name == "pretrain":
            pretrain.add_arguments(command, words)
        else:
            module.add_arguments(command)
    return parser


def with_dashes(word: str) -> str:
    """--learning_rate is --learning-rate."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def unknown(command: str) -> str:
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command {command!r}; {hint}"


def main(argv: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A character that a terminal cannot show must not end a run.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    words = [with_dashes(word) for word in (sys.argv[1:] if argv is None else argv)]
    parser = build_parser(words)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(unknown(words[0]))
    args = parser.parse_args(words)
    if args.command is None:
        parser.print_help()
        return 0
    args.words = words
    module, _ = COMMANDS[args.command]
    try:
        check_numbers(args)
        smt_hf.register()
        quiet()
        return module.run(args) or 0
    except Exception as error:
        sentence = explained(error, args, getattr(args, "flags", {}))
        if sentence is None:
            raise  # not the user's doing: a traceback is what a bug report needs
        print(f"smt-hf {args.command}: error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
