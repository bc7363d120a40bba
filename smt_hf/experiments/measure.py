"""Measure a model on data: free-running from a cold start, a task also at lengths it was not trained at."""

from collections.abc import Sequence
from typing import Any, cast

from smt_hf.data import DataSplits, TokenWindows, data_kind, load_data
from smt_hf.evaluation.free_running import evaluate_lengths, evaluate_rows


def measure(
    model: Any,
    tokenizer: Any,
    named: dict[str, Any],
    *,
    sequence_length: int | None = None,
    lengths: Sequence[int] = (),
    horizon: int = 256,
    max_tokens: int = 65536,
) -> tuple[DataSplits, dict[int, dict[str, Any]]]:
    """The data, and metrics by length: of a task at its own and all asked `lengths`.

    named: what names the data, for `load_data`, its `dataset` among it. sequence_length: of a task. horizon:
    tokens read from each cold start of a text. max_tokens: targets to judge at most.

    Raises ValueError for data of another vocabulary, and for lengths of what is no task.
    """
    named = dict(named)
    name = named.pop("dataset")
    kind = data_kind(name, named.get("image_column"))
    if lengths and kind != "task":
        raise ValueError(f"--lengths are for tasks, and {name!r} is none; give --horizon instead.")
    # A text is cut into blocks; rows of the others have one length.
    length = horizon if kind == "text" else sequence_length or (horizon if kind == "task" else None)
    data = load_data(name, tokenizer, sequence_length=length, **named)
    if data.validation.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{data.name!r} has {data.validation.vocab_size} token ids but the model knows "
            f"{model.config.vocab_size}; evaluate it on data of its own vocabulary."
        )
    if kind == "text":
        length = min(horizon, max_tokens)
        x, y = cast(TokenWindows, data.validation).blocks(length, max_tokens // length)
        return data, {length: evaluate_rows(model, x, y)}
    if data.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"the symbols of {data.name!r} are not those that {model.name_or_path} was trained with; evaluate "
            f"it on its own task or images."
        )
    all_lengths = dict.fromkeys([data.validation.sequence_length, *lengths])
    return data, evaluate_lengths(model, data.validation, all_lengths, max_tokens)
