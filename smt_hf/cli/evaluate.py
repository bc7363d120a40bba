"""Measure a model free-running from a cold start: bits per byte by horizon, or a task's accuracy by length."""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from smt_hf.runs.spec import DATA_FIELDS

from .flags import add_fields, add_number, given_fields
from .loading import add_model_arguments

# Which data to judge on, as `pretrain` names them; without them those that the run was trained on.
FLAGS = (*DATA_FIELDS, "sequence_length")
# Help where that of the field tells what training makes of it.
OF_THE_RUN = {"dataset": "the run's", "text_column": "the run's, else text", "image_column": "the run's",
              "sequence_length": "the run's"}  # fmt: skip
TEXTS = {
    "text_column": "column with the text",
    "split": "split of --dataset to judge whole; none: what the run held out, of other data the first of "
    "validation, test and train",
    "validation_split": "the same as --split, for data that the run was not trained on",
    "sequence_length": "length of a task, or pixels of an image",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_fields(parser, FLAGS, OF_THE_RUN, TEXTS)
    add_number(parser, "--max-tokens", int, default=65536, at_least=1, help="targets to judge at most [65536]")
    add_number(
        parser, "--horizon", int, at_least=1,
        help="tokens of a text that are read from each cold start [256, or as many as it has]",
    )  # fmt: skip
    add_number(parser, "--lengths", int, nargs="+", at_least=1, help="judge a task at these lengths too")
    parser.add_argument(
        "--images", metavar="PNG", type=Path,
        help="of an image model: draw images from nothing, validation images, and their upper halves completed",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from smt_hf.data import data_kind
    from smt_hf.data.kinds import in_words
    from smt_hf.evaluation.images import draw_images
    from smt_hf.evaluation.metrics import describe, report, report_by_length
    from smt_hf.experiments.measure import data_to_judge, measure
    from smt_hf.runs.spec import checked

    from .loading import load_model, new_file, record_of
    from .network import ask_for_data

    if args.images:
        new_file("--images", args.images)
    record, certain = record_of(args.model)
    given = checked(given_fields(args, FLAGS))
    asked_length = given.pop("sequence_length", None)
    length = asked_length or (record.sequence_length if record else None)
    named, held_out = data_to_judge(record, given)
    if not certain:
        logging.getLogger("smt_hf").warning(
            "the run.json of %s could not be had: data that it was trained on would be judged too", args.model
        )
    kind = data_kind(named["dataset"], named.get("image_column"))
    ask_for_data(named["dataset"], image_column=named.get("image_column"))
    if asked_length and kind == "text":
        raise ValueError(
            f"--sequence-length {asked_length} is for tasks and images, and {named['dataset']!r} is text; give "
            f"--horizon instead."
        )
    if args.images and kind != "image":
        raise ValueError(f"--images are drawn by models of images, and {named['dataset']!r} holds none.")
    model, tokenizer = load_model(args)
    data: Any
    data, metrics = measure(
        model, tokenizer, named, held_out=held_out,
        sequence_length=length, lengths=args.lengths or (), horizon=args.horizon, max_tokens=args.max_tokens,
    )  # fmt: skip
    first = next(iter(metrics.values()))
    if data.kind == "task":
        result = report_by_length(metrics, data.validation.chance)
    else:
        result = report(first, data.kind, data.validation.bytes_per_token)
    if args.images:
        draw_images(model, data.validation, args.images)
    parameters = sum(p.numel() for p in model.parameters())
    state_bytes = 4 * model.config.num_memory_tokens * model.config.hidden_size
    if args.json:
        print(json.dumps({**result, "state_bytes": state_bytes, "parameters": parameters}))
        return 0
    part = {"all": "all of ", "validation": "" if data.kind == "task" else "the validation part of "}[data.part]
    print(f"{args.model} on {part}{data.name}: {first['targets']:,} targets, {parameters:,} parameters")
    if data.kind == "task":
        print(f"  {in_words('task')} from a cold start, chance {result['chance']:.3f}")
        for length, accuracy in result["by_length"].items():
            print(f"  {length:>7} tokens: {accuracy:.4f}")
    else:
        print(f"  {describe(first, data.kind, data.validation.bytes_per_token)}")
    print(f"  state: {state_bytes:,} bytes per sequence, whatever its length")
    return 0
