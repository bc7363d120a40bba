"""Config files: YAML with each key once, or the run.json of an earlier run."""

import json
import types
import typing
from pathlib import Path
from typing import Any


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ValueError for what is none, or has a key twice."""
    import yaml  # huggingface_hub cannot be installed without it

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses what a mapping would swallow."""

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{path} has {twice[0]!r} twice; give it once.")
        return {
            key: loader.construct_object(value, deep=True)
            for key, (_, value) in zip(keys, node.value, strict=True)
        }

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        content = yaml.load(read_text(path), Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; write one `name: value` a line.")
    return content


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file; give a YAML file, or the run.json of a run.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError for anything else."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); make it again, or delete it.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object; make it again, or delete it.")
    return content


def check_types(values: dict[str, Any], hints: dict[str, Any], path: Path) -> None:
    """Raise ValueError for the first value whose type is not that of its hint; lists are not looked into."""
    for name, value in values.items():
        hint = hints[name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = tuple(typing.get_origin(kind) or kind for kind in kinds)
        number = float in plain and isinstance(value, int)
        if not (isinstance(value, plain) or number) or (isinstance(value, bool) and bool not in plain):
            raise ValueError(f"{path} has {name} {value!r}, which no run has; make it again, or delete it.")
