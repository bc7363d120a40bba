"""Weights that are read whole: every tensor from its file, and every number finite."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .config import read_json

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
# Kinds of numbers that weights are kept as; others, int8 say, would be read as if they were these.
FLOATS = ("F16", "BF16", "F32", "F64")
DTYPES = (None, "auto", "float16", "bfloat16", "float32", "float64")
SHOWN = 4


def load_whole(model_class: Any, source: str | Path, model_type: str) -> Any:
    """`model_class.from_pretrained(source)` in eval mode, from safetensors alone, with no weight made up.

    source: a folder, or a repository on the Hub. model_type: that of its config.json. Code beside the
    weights is never run.

    Raises ValueError, which names the tensors, for weights that the file lacks or has besides, that have
    another shape, are no floating-point numbers or are not finite; and for a model that cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    settings = read_json(needed(source, "config.json"))
    if (generation := find(source, "generation_config.json")) is not None:
        check_generation(generation)
    if (found := settings.get("model_type")) != model_type:
        raise ValueError(f"{source} holds a model of type {found!r}; this needs one of type {model_type!r}.")
    for name in ("dtype", "torch_dtype"):
        if settings.get(name) not in DTYPES:
            raise ValueError(
                f"{source} has {name} {settings[name]!r}; it must be one of {', '.join(DTYPES[1:])}."
            )
    if "quantization_config" not in settings:
        check_files(source)
    try:
        model, info = model_class.from_pretrained(
            source, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError, StrictDataclassError) as error:
        raise ValueError(f"model {str(source)!r} cannot be loaded: {' '.join(str(error).split())}") from error
    faults = {
        "missing": info["missing_keys"],
        "not of this model": info["unexpected_keys"],
        "of another shape": [name for name, *_ in info["mismatched_keys"]],
        "not finite": not_finite(model.state_dict().items()),
    }
    refuse(source, faults)
    return model.eval()


def check_generation(path: Path) -> None:
    """Refuse a generation_config.json that `transformers` would go on without, or fail with later."""
    for name, value in read_json(path).items():
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if name.endswith("_token_id") and not all(type(one) is int for one in ids):
            raise ValueError(f"{path} has {name} {value!r}; it must be the id of a token.")
        if name.startswith("num_") and value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{path} has {name} {value!r}; it must be a whole number of at least 1.")


def refuse(source: str | Path, faults: dict[str, Iterable[str]]) -> None:
    """Raise a ValueError that names the tensors of each fault, unless there are none."""
    said = [f"{what}: {shown(sorted(names))}" for what, names in faults.items() if names]
    if said:
        raise ValueError(f"the weights of {source} are not those of its config.json ({'; '.join(said)}).")


def shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def not_finite(tensors: Iterable[tuple[str, Any]]) -> list[str]:
    """The names of those with a number that is not finite; quantized ones are not asked, and have integers."""
    import torch

    plain = [(name, one) for name, one in tensors if type(one.data) is torch.Tensor and one.is_floating_point()]
    return [name for name, one in plain if not one.isfinite().all()]


def check_files(source: str | Path) -> None:
    """Refuse files that are damaged, missing, or hold what is no floating-point number; nothing is loaded."""
    from safetensors import safe_open

    wrong = []
    for path in weight_files(source):
        if not path.is_file():
            raise ValueError(f"{path} is missing, and {INDEX} names it; copy the model again.")
        with opened(path, safe_open) as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        wrong += [f"{name} ({kind})" for name, kind in kinds.items() if kind not in FLOATS]
    refuse(source, {"no floating-point numbers": wrong})


def check_numbers(folder: Path) -> None:
    """`check_files`, and every number is finite: all that can be known without the class of the model."""
    from safetensors import safe_open

    check_files(folder)
    wrong = []
    for path in weight_files(folder):
        with opened(path, safe_open) as file:
            wrong += not_finite((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
    refuse(folder, {"not finite": wrong})


def opened(path: Path, safe_open: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again.") from None


def weight_files(source: str | Path) -> list[Path]:
    """The files of safetensors that a model is read from. Raises ValueError for an index that names none."""
    if (whole := find(source, WEIGHTS)) is not None:
        return [whole]
    if (index := find(source, INDEX)) is None:
        raise ValueError(f"{source} holds no {WEIGHTS}; give a finished run.")
    names = read_json(index).get("weight_map")
    if not names or not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index} has no weight_map that names files; copy the model again.")
    # Names alone: a path in an index may not lead elsewhere.
    parts = sorted({Path(name).name for name in names.values()})
    return [find(source, name) or index.with_name(name) for name in parts]


def needed(source: str | Path, name: str) -> Path:
    """As `find`; raises ValueError where there is no such file, or where the Hub does not give it."""
    try:
        found = find(source, name)
    except (OSError, ValueError) as error:
        raise ValueError(f"model {str(source)!r} cannot be loaded: {' '.join(str(error).split())}") from error
    if found is None:
        raise ValueError(f"model {str(source)!r} cannot be loaded: it has no {name}.")
    return found


def find(source: str | Path, name: str) -> Path | None:
    """A file of a folder, or of a repository on the Hub, which is downloaded then; None if there is none."""
    from transformers.utils import cached_file

    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(str(found))
