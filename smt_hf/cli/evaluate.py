"""Measure a model free-running from a cold start: bits per byte by horizon, or a task's accuracy by length."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

from .loading import add_model_arguments
from .pretrain import DATA_FLAGS, add_data_arguments, data_arguments, given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--max-tokens", type=int, default=65536, help="targets to judge at most [65536]")
    parser.add_argument(
        "--horizon", type=int, default=256, help="tokens read from each cold start (text) [256]"
    )
    parser.add_argument("--lengths", type=int, nargs="+", help="judge a task at these lengths too")
    parser.add_argument(
        "--images", metavar="PNG", type=Path,
        help="of an image model: draw images from nothing, validation images, and their upper halves completed",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from smt_hf.data.kinds import in_words
    from smt_hf.evaluation.images import draw_images
    from smt_hf.evaluation.metrics import describe, report, report_by_length

    from .loading import load_model, quiet

    quiet()
    for name in ("horizon", "max_tokens"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1.")
    model, tokenizer = load_model(args)
    data, metrics = measure(args, model, tokenizer)
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


def measure(args: argparse.Namespace, model: Any, tokenizer: Any) -> tuple[Any, dict[int, dict[str, Any]]]:
    """The data, and free-running metrics by length: of a task at the trained and all asked lengths.

    Data that the run was not trained on are judged whole; of those that it was trained on, and without
    --dataset, only what was held out for validation.
    """
    from smt_hf.data import TokenWindows, data_kind, load_data, load_evaluation_data
    from smt_hf.evaluation.free_running import evaluate_lengths, evaluate_rows
    from smt_hf.pretraining.run_folder import read_record

    if args.split is not None and args.validation_split is not None:
        raise ValueError(
            f"--split {args.split} and --validation-split {args.validation_split} both name what is judged; "
            f"give one."
        )
    record = read_record(Path(args.model)) or {}
    own = record.get("data", {"dataset": record.get("dataset")})
    trained_on = args.dataset is None or same_data(args.dataset, own["dataset"])
    held_out = trained_on and not asks_for_another_split(args, own)
    judged = args.validation_split or args.split
    if not trained_on and overlap(args.dataset, own["dataset"]):
        print(
            f"{args.dataset} overlaps with {own['dataset']}, which the run was trained on: training data "
            f"is judged too",
            file=sys.stderr,
        )
    if trained_on:
        args = argparse.Namespace(**{**vars(args), **own, **given(args, DATA_FLAGS)})
    named = data_arguments(args)
    kind = data_kind(named["dataset"], args.image_column)
    if args.lengths and kind != "task":
        raise ValueError(f"--lengths are for tasks, and {named['dataset']!r} is none; give --horizon instead.")
    if args.images and kind != "image":
        raise ValueError(f"--images are drawn by models of images, and {named['dataset']!r} holds none.")
    if args.tokenizer is not None:
        raise ValueError(f"--tokenizer {args.tokenizer} has no use: a model is judged with its own.")
    if args.sequence_length is not None and kind == "text":
        raise ValueError(
            f"--sequence-length {args.sequence_length} is for tasks and images, and {named['dataset']!r} is "
            f"text; give --horizon instead."
        )
    length = args.horizon  # a text is cut into blocks; rows of the others have one length
    if kind != "text":
        length = (
            args.sequence_length or record.get("sequence_length") or (args.horizon if kind == "task" else None)
        )
    dataset = named.pop("dataset")
    if held_out:
        if kind != "task" and named.get("max_corpus_bytes") != own.get("max_corpus_bytes"):
            raise ValueError(
                f"--max-corpus-bytes {named.get('max_corpus_bytes')} would cut {dataset!r} elsewhere than the "
                f"run did, so that text of its training would be judged; limit --max-tokens instead."
            )
        data: Any = load_data(dataset, tokenizer, sequence_length=length, **named)
    else:
        named = {**named, "split": judged}
        named.pop("validation_split", None)
        data = load_evaluation_data(dataset, tokenizer, sequence_length=length, **named)
    if data.validation.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{data.name!r} has {data.validation.vocab_size} token ids but the model knows "
            f"{model.config.vocab_size}; evaluate it on data of its own vocabulary."
        )
    if kind != "text":
        if data.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"the symbols of {data.name!r} are not those that {args.model} was trained with; "
                f"evaluate it on its own task or images."
            )
        lengths = dict.fromkeys([data.validation.sequence_length, *(args.lengths or [])])
        return data, evaluate_lengths(model, data.validation, lengths, args.max_tokens)
    length = min(length, args.max_tokens)
    x, y = cast(TokenWindows, data.validation).blocks(length, args.max_tokens // length)
    return data, {length: evaluate_rows(model, x, y)}


def same_data(one: str, other: str | None) -> bool:
    """Whether two names of data are the same: the same words, or paths of the same file or folder."""
    if one == other or other is None:
        return one == other
    paths = Path(one).expanduser(), Path(other).expanduser()
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def overlap(one: str, other: str | None) -> bool:
    """Whether one of two paths lies below the other."""
    paths = [Path(name).expanduser() for name in (one, other) if name]
    if len(paths) < 2 or not all(path.exists() for path in paths):
        return False
    a, b = (path.resolve() for path in paths)
    return a.is_relative_to(b) or b.is_relative_to(a)


def asks_for_another_split(args: argparse.Namespace, own: dict[str, Any]) -> bool:
    """Whether flags name a split that the run was not trained on, and not validated on by itself."""
    if args.validation_split is not None:
        return args.validation_split != own.get("validation_split", own.get("split", "train"))
    return args.split is not None and args.split != own.get("split", "train")
