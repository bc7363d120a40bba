"""Measure speed and memory beside other models of the same size, in one process, round after round."""

import argparse
import json
import os
from pathlib import Path

DEFAULT_CONTEXTS = {"decode": [16, 4096], "prefill": [4096]}
DEFAULT_MODELS = "smt-gru smt-mlp smt-transformer gpt2 mamba torch-gru"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", choices=("decode", "prefill"), help="decode or prefill")
    parser.add_argument("--models", nargs="+", metavar="NAME", default=DEFAULT_MODELS.split(),
                        help=f"what to measure [{DEFAULT_MODELS}]")  # fmt: skip
    parser.add_argument("--parameters", type=float, default=7e6, help="size to fit the models to [7e6]")
    parser.add_argument("--context", nargs="+", type=int, metavar="N",
                        help="tokens read before [16 4096; prefill: 4096]")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate in one run of decode [64]")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, after one that does not count [5]")
    parser.add_argument("--threads", type=int, help="threads of one product [as many as cores]")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the weights [float32]")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, or cuda [cpu]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", metavar="FILE", help="write the JSON to a new file too")


def run(args: argparse.Namespace) -> int:
    for name in ("parameters", "tokens", "repeats"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}; it must be at least 1.")
    contexts = args.context or DEFAULT_CONTEXTS[args.what]
    if min(contexts) < 1:
        raise ValueError(f"--context is {min(contexts)}; it must be at least 1.")
    if args.output and Path(args.output).exists():
        raise FileExistsError(f"--output {args.output} exists; name a new file.")

    import torch

    from smt_hf.benchmark.decoding import check_names, measure_decode, measure_prefill, subjects
    from smt_hf.benchmark.measure import describe_machine

    from .loading import quiet

    quiet()
    check_names(args.models)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda but torch sees no GPU; use cpu.")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    machine = describe_machine(device)
    found = subjects(args.models, int(args.parameters), device, getattr(torch, args.dtype), {})
    rows = []
    for context in contexts:
        if args.what == "decode":
            bandwidth = machine["memory_bandwidth_bytes_per_second"]
            rows += measure_decode(found, context, args.tokens, args.repeats, bandwidth)
        else:
            rows += measure_prefill(found, context, args.repeats)
    result = {
        "what": args.what, "command": args.words, "dtype": args.dtype, "repeats": args.repeats,
        "machine": machine, "rows": rows,
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    if args.output:
        part = Path(f"{args.output}.part")  # whole or absent
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, args.output)
    print(text if args.json else table(rows))
    return 0


def table(rows: list[dict]) -> str:
    lines = ["model             param.  context   tokens/s             range  floor   state bytes   peak MB"]
    for row in rows:
        low, high = row["range"]
        lines.append(
            f"{row['model']:<17}{row['parameters'] / 1e6:5.1f}M {row['context']:8,}"
            f" {row['tokens_per_second']:10.1f} {low:8.1f}–{high:8.1f} {row['floor_fraction']:6.2f}"
            f" {row['state_bytes']:13,}"
            f" {row['peak_memory_bytes'] / 1e6:9.1f}"
        )
    return "\n".join(lines)
