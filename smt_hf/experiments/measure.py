"""Measure a model on data: free-running from a cold start, a task also at lengths it was not trained at."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from smt_hf.data import EvaluationData, TokenWindows, data_kind, load_data, load_evaluation_data
from smt_hf.evaluation.free_running import evaluate_lengths, evaluate_rows
from smt_hf.runs.record import RunRecord

HORIZON = 256  # tokens that are read of a text, or of a task that says no length

logger = logging.getLogger(__name__)


def data_to_judge(record: RunRecord | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """(what names the data, whether only what the run held out may be judged). Overlapping data are logged.

    record: of the run, if there is one. given: what was asked for. Data that the run was not trained on are
    judged whole; of those that it was trained on, which are those of no `dataset`, only what was held out.

    Raises ValueError for no data at all, and for what would judge a text of the training.
    """
    split, validation = given.get("split"), given.get("validation_split")
    if split is not None and validation is not None:
        raise ValueError(
            f"--split {split} and --validation-split {validation} both name what is judged; give one."
        )
    own = record.data if record is not None else {}
    if "dataset" not in given and not own:
        raise ValueError("there is no run.json beside the model that names its data; give --dataset.")
    # Of what is judged whole, both flags name the split; by default it is the first of validation, test, train.
    judged = {"split": validation or split, "validation_split": None}
    if not same_data(given.get("dataset"), own.get("dataset")):
        if overlap(given["dataset"], own.get("dataset")):
            logger.warning(
                "%s overlaps with %s, which the run was trained on: training data is judged too",
                given["dataset"], own["dataset"],
            )  # fmt: skip
        return {**given, **judged}, False
    named = {**own, **given}
    if asks_for_another_split(given, own):
        return {**named, **judged}, False
    limit, kind = named.get("max_corpus_bytes"), data_kind(named["dataset"], named.get("image_column"))
    if kind != "task" and limit != own.get("max_corpus_bytes"):
        raise ValueError(
            f"--max-corpus-bytes {limit} would cut {named['dataset']!r} elsewhere than the run did, so that "
            f"text of its training would be judged; limit --max-tokens instead."
        )
    return named, True


def same_data(one: str | None, other: str | None) -> bool:
    """Whether two names of data are the same: no name, the same words, or paths of the same file or folder."""
    if one is None or other is None or one == other:
        return one is None or one == other
    paths = Path(one).expanduser(), Path(other).expanduser()
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def overlap(one: str, other: str | None) -> bool:
    """Whether one of two paths lies below the other."""
    paths = [Path(name).expanduser() for name in (one, other) if name]
    if len(paths) < 2 or not all(path.exists() for path in paths):
        return False
    a, b = (path.resolve() for path in paths)
    return a.is_relative_to(b) or b.is_relative_to(a)


def asks_for_another_split(given: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a split is asked for that the run was not trained on, and not validated on by itself."""
    split, validation = given.get("split"), given.get("validation_split")
    trained_on = own.get("split", "train")
    if validation is not None:
        return validation != own.get("validation_split", trained_on)
    return split is not None and split != trained_on


def measure(
    model: Any,
    tokenizer: Any,
    named: Mapping[str, Any],
    *,
    held_out: bool = True,
    sequence_length: int | None = None,
    lengths: Sequence[int] = (),
    horizon: int | None = None,
    max_tokens: int = 65536,
) -> tuple[EvaluationData, dict[int, dict[str, Any]]]:
    """The data, and metrics by length: of a task at its own and all asked `lengths`.

    named: what names the data, for `load_data`, its `dataset` among it. held_out: judge the validation part,
    else all. sequence_length: of a task. horizon: tokens read from each cold start of a text, by default
    256, or as many as there are or may be judged. max_tokens: targets to judge at most.

    Raises ValueError for data of another vocabulary, for lengths of what is no task, and for a horizon of what
    is no text, or of more than max_tokens.
    """
    named = dict(named)
    name = named.pop("dataset")
    kind = data_kind(name, named.get("image_column"))
    if lengths and kind != "task":
        flag = "--horizon" if kind == "text" else "--sequence-length"
        raise ValueError(f"--lengths are for tasks, and {name!r} is none; give {flag} instead.")
    if horizon is not None and kind != "text":
        raise ValueError(f"--horizon is for text, and {name!r} is none; give --sequence-length instead.")
    if horizon is not None and horizon > max_tokens:
        raise ValueError(
            f"--horizon {horizon} is more than --max-tokens {max_tokens}; judge at least as many tokens as are "
            f"read from one cold start."
        )
    # A text is cut into blocks; rows of the others have one length.
    of_rows = {"text": horizon or 1, "task": sequence_length or HORIZON, "image": sequence_length}
    length = of_rows[kind]
    data: EvaluationData
    if held_out:
        data = load_data(name, tokenizer, sequence_length=length, **named)
    else:
        named.pop("validation_split", None)
        data = load_evaluation_data(name, tokenizer, sequence_length=length, **named)
    if data.validation.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{data.name!r} has {data.validation.vocab_size} token ids but the model knows "
            f"{model.config.vocab_size}; evaluate it on data of its own vocabulary."
        )
    if kind == "text":
        text = cast(TokenWindows, data.validation)
        length = min(horizon or min(HORIZON, text.num_tokens - 1), max_tokens)
        x, y = text.blocks(length, max_tokens // length)
        return data, {length: evaluate_rows(model, x, y)}
    if data.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"the symbols of {data.name!r} are not those that {model.name_or_path} was trained with; evaluate "
            f"it on its own task or images."
        )
    all_lengths = dict.fromkeys([data.validation.sequence_length, *lengths])
    return data, evaluate_lengths(model, data.validation, all_lengths, max_tokens)
