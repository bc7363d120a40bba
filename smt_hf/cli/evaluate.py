"""Measure a model free-running from a cold start: bits per byte by horizon, or a task's accuracy."""

import argparse
import json
from pathlib import Path
from typing import cast

from .loading import add_model_arguments
from .pretrain import add_data_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--max-tokens", type=int, default=65536, help="targets to judge at most [65536]")
    parser.add_argument("--horizon", type=int, default=256, help="tokens read from each cold start [256]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from smt_hf.data import TASKS, TokenWindows, load_data
    from smt_hf.evaluation.free_running import evaluate_rows
    from smt_hf.evaluation.metrics import describe, report
    from smt_hf.pretraining.run_folder import read_record

    from .loading import load_model, quiet

    quiet()
    for name in ("horizon", "max_tokens"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1.")
    model, tokenizer = load_model(args)
    task = args.dataset in TASKS  # tasks have rows of one length; a text is cut into blocks
    length = args.horizon
    if task:
        trained = (read_record(Path(args.model)) or {}).get("sequence_length")
        length = args.sequence_length or trained or args.horizon
    data = load_data(
        args.dataset, tokenizer, sequence_length=length, text_column=args.text_column, split=args.split,
        streaming=args.streaming, max_corpus_bytes=args.max_corpus_bytes,
    )  # fmt: skip
    if data.validation.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{args.dataset!r} has {data.validation.vocab_size} token ids but the model knows "
            f"{model.config.vocab_size}; evaluate it on data of its own vocabulary."
        )
    if task:
        rows = data.validation.__getitems__(range(max(1, min(len(data.validation), args.max_tokens))))
        x, y = rows["input_ids"], rows["shift_labels"]
    else:
        length = min(length, args.max_tokens)
        x, y = cast(TokenWindows, data.validation).blocks(length, args.max_tokens // length)
    metrics = evaluate_rows(model, x, y)
    parameters = sum(p.numel() for p in model.parameters())
    state_bytes = 4 * model.config.num_memory_tokens * model.config.hidden_size
    result = report(metrics, data.validation.bytes_per_token, state_bytes, parameters)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.model} on {args.dataset}: {metrics['targets']:,} targets, {parameters:,} parameters")
        print(f"  {describe(metrics, data.validation.bytes_per_token)}")
        print(f"  state: {state_bytes:,} bytes per sequence, whatever its length")
    return 0
