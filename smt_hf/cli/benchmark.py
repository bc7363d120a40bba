"""Measure speed and memory side by side, in one process, round after round.

decode, prefill: tokens per second of `generate`, beside other models of the same size. train: whole steps of
SMT and of BPTT by length of the context. dmt: a DMT step, beside the official algorithm written plainly.
serve: servers under many streams at once, ours beside `transformers serve`.
"""

import argparse
from pathlib import Path

from .flags import add_number

DEFAULT_CONTEXTS = {
    "decode": [16, 4096],
    "prefill": [4096],
    "train": [128, 1024],
    "dmt": [256],
    "serve": [2000],
}
DEFAULT_TOKENS = {"decode": 64, "train": 2048, "dmt": 512}
SHORTEST = 16  # tokens of a step
DEFAULT_PRESETS = {"train": "small", "dmt": "paper"}
DEFAULT_MODELS = "smt-gru smt-mlp smt-transformer gpt2 mamba torch-gru"
# Training is that of a preset, on the device that Accelerate would take.
TRAINED = {"train": ["smt-gru", "smt-transformer"], "dmt": ["smt-transformer"]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", metavar="WHAT", choices=tuple(DEFAULT_CONTEXTS), help="decode, prefill, train, dmt or serve"
    )
    parser.add_argument("--models", nargs="+", metavar="NAME",
                        help=f"what to measure [{DEFAULT_MODELS}; dmt: smt-transformer]")  # fmt: skip
    add_number(
        parser,
        "--parameters",
        float,
        default=7e6,
        at_least=1,
        at_most=1e12,
        help="size to fit the models to [7e6]",
    )
    add_number(parser, "--context", int, nargs="+", metavar="N", at_least=1,
               help="tokens read before [16 4096; prefill: 4096]")  # fmt: skip
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
        parser, "--threads", int, at_least=1, at_most=1024, help="threads of one product [as many as cores]"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the weights; of the products of train and dmt [float32]")  # fmt: skip
    parser.add_argument("--compile", action="store_true",
                        help="decode: ours a second time, as compiled programs")  # fmt: skip
    parser.add_argument(
        "--device", default="cpu", help="decode, prefill: cpu, or cuda [cpu]; the others take a GPU there is"
    )
    add_number(parser, "--streams", int, nargs="+", metavar="N", at_least=1, at_most=4096,
               help="serve: clients at once [1 8 64]")  # fmt: skip
    add_number(parser, "--dollars-per-hour", float, metavar="P", at_least=0,
               help="serve: what the machine costs, for dollars a million tokens")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", metavar="FILE", help="write the JSON to a new file too")


def run(args: argparse.Namespace) -> int:
    contexts = args.context or DEFAULT_CONTEXTS[args.what]
    if args.compile and args.what != "decode":
        raise ValueError(f"--compile is for decode, not for {args.what}.")
    args.tokens = args.tokens or DEFAULT_TOKENS.get(args.what)
    from .loading import new_file

    if args.output:
        new_file("--output", args.output)

    import torch

    from smt_hf.benchmark.decoding import check_names, measure_decode, measure_prefill, subjects
    from smt_hf.benchmark.measure import describe_machine
    from smt_hf.runs.environment import default_device

    if args.what == "serve":
        if args.dtype != "float32":
            raise ValueError(f"--dtype is {args.dtype}, and serve measures float32; leave it out.")
        return show(args, describe_machine(default_device()), served_rows(args, contexts))
    if args.what in TRAINED:
        return show(args, describe_machine(default_device()), trained_rows(args, contexts))
    args.models = args.models or DEFAULT_MODELS.split()
    check_names(args.models)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda but torch sees no GPU; use cpu.")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    machine = describe_machine(device)
    found = subjects(args.models, int(args.parameters), device, getattr(torch, args.dtype), args.compile)
    rows = []
    for context in contexts:
        if args.what == "decode":
            bandwidth = machine["memory_bandwidth_bytes_per_second"]
            for batch in args.batch or [1]:
                rows += measure_decode(found, context, args.tokens, args.repeats, bandwidth, batch)
        else:
            rows += measure_prefill(found, context, args.repeats)
    return show(args, machine, rows)


def served_rows(args: argparse.Namespace, contexts: list[int]) -> list[dict]:
    from smt_hf.benchmark.serving import SERVERS, measure_serving

    models = args.models or list(SERVERS)
    if unknown := set(models) - set(SERVERS):
        raise ValueError(f"--models names {min(unknown)!r}; serve measures {', '.join(SERVERS)}.")
    return measure_serving(models, int(args.parameters), args.streams or [1, 8, 64], contexts[0], args.repeats)


def trained_rows(args: argparse.Namespace, contexts: list[int]) -> list[dict]:
    import torch

    from smt_hf.benchmark.training_steps import Step, dmt_steps, measure_steps, smt_and_bptt_steps
    from smt_hf.models.cells import CELLS

    models = args.models or TRAINED[args.what]
    if unknown := set(models) - {f"smt-{cell}" for cell in CELLS}:
        raise ValueError(
            f"--models names {min(unknown)!r}; {args.what} measures smt-CELL for a cell of {', '.join(CELLS)}."
        )
    # SMT's labels, and the official algorithm's first one, need as many tokens before them.
    if min(contexts) < SHORTEST:
        raise ValueError(f"--context is {min(contexts)}; {args.what} needs at least {SHORTEST} tokens.")
    preset, dtype = args.preset or DEFAULT_PRESETS[args.what], getattr(torch, args.dtype)
    steps: list[Step] = []
    for model in models:
        cell = model.removeprefix("smt-")
        if args.what == "train":
            steps += smt_and_bptt_steps(cell, preset, contexts, args.tokens, dtype)
        else:
            for context in contexts:
                steps += dmt_steps(cell, preset, max(1, args.tokens // context), context, [8, 15], dtype)
    return measure_steps(steps, args.repeats)


def show(args: argparse.Namespace, machine: dict, rows: list[dict]) -> int:
    from smt_hf.runs.files import one_entry_a_line, write_atomic

    result = {
        "what": args.what, "command": args.words, "dtype": args.dtype, "repeats": args.repeats,
        "machine": machine, "rows": rows,
    }  # fmt: skip
    if not rows:
        raise ValueError("none of --models could be measured; the lines above say why.")
    text = one_entry_a_line(result)
    if args.output:
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
