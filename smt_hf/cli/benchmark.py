"""Measure speed and memory side by side, in one process, round after round.

decode, prefill: tokens per second of `generate`, beside other models of the same size. train: whole steps of
SMT and of BPTT by length of the context. dmt: a DMT step, beside the official algorithm written plainly.
serve: servers under many streams at once, ours beside `transformers serve`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .flags import add_number

if TYPE_CHECKING:
    import torch

# Of each flag that not everything uses the same way: what uses it, and what holds where it is not given.
DEFAULTS: dict[str, dict[str, Any]] = {
    "context": {
        "decode": [16, 4096],
        "prefill": [4096],
        "train": [128, 1024],
        "dmt": [256],
        "serve": [2000],
    },
    "parameters": {"decode": 7e6, "prefill": 7e6, "serve": 7e6},
    "tokens": {"decode": 64, "train": 2048, "dmt": 512},
    "batch": {"decode": [1]},
    "preset": {"train": "small", "dmt": "paper"},
    # A server is a process of its own, with as many threads as it likes, and its model has float32.
    "threads": dict.fromkeys(("decode", "prefill", "train", "dmt")),
    "dtype": dict.fromkeys(("decode", "prefill", "train", "dmt"), "float32"),
    "compile": {"decode": False},
    "device": {"decode": "cpu", "prefill": "cpu"},
    "streams": {"serve": [1, 8, 64]},
    "dollars_per_hour": {"serve": None},
}
SHORTEST = 16  # tokens of a step
DEFAULT_MODELS = "smt-gru smt-mlp smt-transformer gpt2 mamba torch-gru"
# Training is that of a preset, on the device that Accelerate would take.
TRAINED = {"train": ["smt-gru", "smt-transformer"], "dmt": ["smt-transformer"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", metavar="WHAT", choices=tuple(DEFAULTS["context"]), help="decode, prefill, train, dmt or serve"
    )
    parser.add_argument("--models", nargs="+", metavar="NAME",
                        help=f"what to measure [{DEFAULT_MODELS}; dmt: smt-transformer]")  # fmt: skip
    add_number(
        parser,
        "--parameters",
        float,
        at_least=1,
        at_most=1e12,
        help="decode, prefill and serve: size to fit the models to [7e6]",
    )
    add_number(parser, "--context", int, nargs="+", metavar="N", at_least=1,
               help="tokens read before [16 4096; prefill: 4096], of a row [train: 128 1024], of a rollout "
               "[dmt: 256], or that a turn adds, a single number [serve: 2000]")  # fmt: skip
    add_number(
        parser, "--tokens", int, at_least=1,
        help="tokens to generate in one run of decode [64], or of a step of train [2048] and dmt [512]",
    )  # fmt: skip
    add_number(parser, "--batch", int, nargs="+", metavar="N", at_least=1, at_most=65536,
               help="decode: texts at once [1]")  # fmt: skip
    parser.add_argument("--preset", help="train and dmt: whose sizes the step has [small; dmt: paper]")
    add_number(
        parser, "--repeats", int, default=5, at_least=1, help="rounds, after one that does not count [5]"
    )
    add_number(
        parser, "--threads", int, at_least=1, at_most=1024,
        help="all but serve: threads of one product [as many as cores]",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=("float32", "bfloat16"),
                        help="of the weights; train and dmt: of the products [float32]")  # fmt: skip
    parser.add_argument("--compile", action="store_true", default=None,
                        help="decode: ours a second time, as compiled programs")  # fmt: skip
    parser.add_argument("--device", help="decode, prefill: cpu, or cuda [cpu]; the others take a GPU there is")
    add_number(parser, "--streams", int, nargs="+", metavar="N", at_least=1, at_most=4096,
               help="serve: clients at once [1 8 64]")  # fmt: skip
    add_number(parser, "--dollars-per-hour", float, metavar="P", at_least=0,
               help="serve: what the machine costs, for dollars a million tokens")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", metavar="FILE", help="write the JSON to a new file too")


def run(args: argparse.Namespace) -> int:
    take_defaults(args)
    if args.what == "serve" and len(args.context) > 1:
        raise ValueError(f"--context is {' '.join(map(str, args.context))}; serve takes one number of tokens.")
    if args.json and args.dollars_per_hour is not None:
        raise ValueError("--dollars-per-hour is a column of the table, and --json prints none; leave one out.")
    from .loading import new_file

    if args.output is not None:
        new_file("--output", args.output)

    import torch

    from smt_hf.benchmark.decoding import check_names, measure_decode, measure_prefill, subjects
    from smt_hf.benchmark.measure import describe_machine
    from smt_hf.runs.environment import default_device

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.what == "serve":
        return show(args, describe_machine(default_device()), served_rows(args))
    if args.what in TRAINED:
        return show(args, describe_machine(default_device()), trained_rows(args))
    args.models = args.models or DEFAULT_MODELS.split()
    check_names(args.models)
    device = device_of(args.device)
    machine = describe_machine(device)
    found = subjects(args.models, int(args.parameters), device, getattr(torch, args.dtype), args.compile)
    rows = []
    for context in args.context:
        if args.what == "decode":
            bandwidth = machine["memory_bandwidth_bytes_per_second"]
            for batch in args.batch:
                rows += measure_decode(found, context, args.tokens, args.repeats, bandwidth, batch)
        else:
            rows += measure_prefill(found, context, args.repeats)
    return show(args, machine, rows)


def take_defaults(args: argparse.Namespace) -> None:
    """What holds where nothing is given. Raises ValueError for a given flag that would change nothing."""
    for name, defaults in DEFAULTS.items():
        given = getattr(args, name) is not None
        if given and args.what not in defaults:
            *others, last = defaults
            users = f"{', '.join(others)} and {last}" if others else last
            raise ValueError(f"--{name.replace('_', '-')} is for {users}, not for {args.what}.")
        if not given:
            setattr(args, name, defaults.get(args.what))


def device_of(name: str) -> "torch.device":
    """Raises ValueError for what is no device, and for a GPU that torch does not see."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:  # which lists the devices of every other machine
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device is {name!r}; it must be cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = "no such GPU" if torch.cuda.is_available() else "no GPU"
        raise ValueError(f"--device is {name} but torch sees {seen}; use cpu.")
    return device


def served_rows(args: argparse.Namespace) -> list[dict]:
    from smt_hf.benchmark.serving import SERVERS, measure_serving

    models = args.models or list(SERVERS)
    if unknown := set(models) - set(SERVERS):
        raise ValueError(f"--models names {min(unknown)!r}; serve measures {', '.join(SERVERS)}.")
    return measure_serving(models, int(args.parameters), args.streams, args.context[0], args.repeats)


def trained_rows(args: argparse.Namespace) -> list[dict]:
    import torch

    from smt_hf.benchmark.training_steps import Step, dmt_steps, measure_steps, smt_and_bptt_steps
    from smt_hf.models.cells import CELLS

    models = args.models or TRAINED[args.what]
    if unknown := set(models) - {f"smt-{cell}" for cell in CELLS}:
        raise ValueError(
            f"--models names {min(unknown)!r}; {args.what} measures smt-CELL for a cell of {', '.join(CELLS)}."
        )
    # SMT's labels, and the official algorithm's first one, need as many tokens before them.
    if min(args.context) < SHORTEST:
        raise ValueError(f"--context is {min(args.context)}; {args.what} needs at least {SHORTEST} tokens.")
    dtype = getattr(torch, args.dtype)
    steps: list[Step] = []
    for model in models:
        cell = model.removeprefix("smt-")
        if args.what == "train":
            steps += smt_and_bptt_steps(cell, args.preset, args.context, args.tokens, dtype)
        else:
            for context in args.context:
                rows = max(1, args.tokens // context)
                steps += dmt_steps(cell, args.preset, rows, context, [8, 15], dtype)
    return measure_steps(steps, args.repeats)


def show(args: argparse.Namespace, machine: dict, rows: list[dict]) -> int:
    from smt_hf.runs.files import one_entry_a_line, write_atomic

    result = {
        "what": args.what, "command": args.words, "dtype": args.dtype or "float32", "repeats": args.repeats,
        "machine": machine, "rows": rows,
    }  # fmt: skip
    if not rows:
        raise ValueError("none of --models could be measured; the lines above say why.")
    text = one_entry_a_line(result)
    if args.output is not None:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(args.output), text)
    if args.json:
        print(text, end="")
    elif args.what == "serve":
        print(streams_table(rows, args.dollars_per_hour))
    else:
        print(steps_table(rows) if args.what in TRAINED else table(rows))
    return 0


def streams_table(rows: list[dict], dollars: float | None) -> str:
    lines = [
        "model      server                                    streams  tokens/s  first, ms p50    p95  turn 6/1"
    ]
    for row in rows:
        cost = (
            f"  ${dollars / 3600 / row['tokens_per_second'] * 1e6:.2f} a million" if dollars is not None else ""
        )
        lines.append(
            f"{row['model']:<10} {row['server']:<42} {row['streams']:6} {row['tokens_per_second']:9.1f}"
            f" {1e3 * row['first_token_p50']:14.0f} {1e3 * row['first_token_p95']:6.0f}"
            f" {row['turn_6'] / row['turn_1']:9.2f}{cost}"
        )
    return "\n".join(lines)


def steps_table(rows: list[dict]) -> str:
    lines = ["model           method                                   context  tokens/s  waits"]
    for row in rows:
        lines.append(
            f"{row['model']:<15} {row['method']:<40} {row['context']:7,} {row['tokens_per_second']:9.0f}"
            f" {row['sequential_steps']:6}"
        )
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    lines = [
        "model                     param.  context   tokens/s             range  floor   state bytes   peak MB"
    ]
    for row in rows:
        low, high = row["range"]
        name = row["model"] if row.get("batch", 1) == 1 else f"{row['model']} × {row['batch']}"
        lines.append(
            f"{name:<25}{row['parameters'] / 1e6:5.1f}M {row['context']:8,}"
            f" {row['tokens_per_second']:10.1f} {low:8.1f}–{high:8.1f} {row['floor_fraction']:6.2f}"
            f" {row['state_bytes']:13,}"
            + (f" {row['peak_memory_bytes'] / 1e6:9.1f}" if "peak_memory_bytes" in row else "         –")
        )
    return "\n".join(lines)
