"""RunSpec: the one description of a run.

A flag of `smt-hf pretrain`, a key of a --config file, of a preset, of a recipe or of run.json["spec"], and a
keyword of `RunSpec.of` are the same thing: a field of this class. Values are laid over one another: defaults,
then the preset, then a file, then flags.
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .arguments import ENCODER_TYPES, SMTPretrainingArguments, kinds_of, option
from .config import read_yaml
from .fitting import fitted

PRESET_FOLDER = Path(__file__).parent.parent / "presets"
DATA, MODEL = "data", "model and teacher"
# What names the data, for `load_data`.
DATA_FIELDS = (
    *("dataset", "text_column", "image_column", "grey_levels", "split", "validation_split", "streaming"),
    "max_corpus_bytes",
)
PATHS = ("dataset", "tokenizer", "teacher", "output_dir")
KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass
class RunSpec(SMTPretrainingArguments):
    """All that `smt-hf pretrain` can be told. None: what the preset, the data or the cell make of it.

    Raises ValueError for values that are out of range or contradict one another.
    """

    preset: str = option("small", "sizes that go together", "run")

    dataset: str = option(
        "python-docs",
        "python-docs, digits (images), a text file or folder, a `datasets` name, or a generated task such as "
        "retrieval (NAME:size=number sets its sizes)",
        DATA,
    )
    sequence_length: int | None = option(
        None, "tokens of a training sequence; length of a task", DATA, at_least=2
    )
    tokenizer: str | None = option(
        None,
        "byte, example (2,048 pieces of words), or a Hugging Face tokenizer by name or folder; none: byte",
        DATA,
    )
    text_column: str | None = option(None, "column with the text; none: text", DATA)
    image_column: str | None = option(None, "column with images, to be read as grey pixels", DATA)
    grey_levels: int | None = option(
        None, "grey levels of an image; none: 17 of digits, else 256", DATA, above=1
    )
    split: str | None = option(None, "split of a `datasets` name to read; none: train", DATA)
    validation_split: str | None = option(
        None, "split to validate on; none: its own validation, else 5% of --split", DATA
    )
    streaming: bool | None = option(None, "stream a large `datasets` name", DATA)
    max_corpus_bytes: int | None = option(None, "read no more text, or pixels, than this", DATA, above=0)

    teacher: str | None = option(
        None,
        "causal language model (folder, Hub name, or example, that of the package) that says soft targets, "
        "brings the tokenizer, and makes labels if --encoder-type is given",
        MODEL,
    )
    teacher_embeddings: bool = option(
        True, "start embedding and head from the teacher's, narrowed to the model's width", MODEL
    )
    teacher_top: int | None = option(
        None,
        "let the teacher read the corpus once, and keep so many of its most probable next tokens on disk; "
        "none: ask it at every step (its labels are made at every step in any case)",
        MODEL,
        above=0,
    )
    cell: str = option("gru", "transformer, mlp, gru, lstm, elman or module:Class", MODEL)
    hidden_size: int | None = option(None, "width of memory tokens, D", MODEL, above=0)
    num_memory_tokens: int | None = option(None, "number of memory tokens, K", MODEL, above=0)
    num_hidden_layers: int | None = option(None, "depth of the cell", MODEL, above=0)
    num_readout_layers: int | None = option(
        None, "depth of the readout (and of the teacher's decoder)", MODEL, above=0
    )
    num_attention_heads: int | None = option(None, "attention heads", MODEL, above=0)
    bptt_truncation: int | None = option(
        None, "cut the gradient through time every so many tokens (BPTT)", MODEL, above=0
    )
    context_length: int | None = option(
        None, "most tokens a memory label sums up, Tc (tasks: the whole sequence)", MODEL, above=0
    )
    future_length: int | None = option(
        None, "targets a memory label must predict, F (tasks: to the end, unless given)", MODEL, above=0
    )
    num_encoder_layers: int | None = option(None, "depth of the teacher's encoder", MODEL, above=0)
    encoder_type: str = option(
        "causal",
        "what makes labels: causal (registers that read a trunk), projected (a linear map of that trunk), "
        "given (a linear map of --teacher) or bidirectional (the paper's)",
        MODEL,
        one_of=ENCODER_TYPES,
    )

    # No fields of the description: which of the others were given, rather than taken from the preset, and what
    # the preset had of those that gave way to them.
    given: frozenset[str] = field(default=frozenset(), repr=False, compare=False, metadata={"help": ""})
    gave_way: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata={"help": ""})

    @classmethod
    def of(cls, **values: Any) -> "RunSpec":
        """The preset (`preset=`, "small" by default) with these values laid over it."""
        return make_spec(values)

    def changed(self, **values: Any) -> "RunSpec":
        """The description with other values, of which those that differ have given way."""
        before = {name: getattr(self, name) for name, value in values.items() if value != getattr(self, name)}
        return dataclasses.replace(self, **values, gave_way={**before, **self.gave_way}) if before else self

    @property
    def data(self) -> dict[str, Any]:
        """What names the data, for `load_data`."""
        return {name: getattr(self, name) for name in DATA_FIELDS if getattr(self, name) is not None}

    def to_dict(self) -> dict[str, Any]:
        """All values, as run.json keeps them. `spec_of_record` reads them back."""
        return {name: getattr(self, name) for name in FIELDS}

    def given_values(self) -> dict[str, Any]:
        """What was given, in the order of the fields: laid over the preset again, the same description."""
        return {name: getattr(self, name) for name in FIELDS if name in self.given}

    def command(self) -> list[str]:
        """The command that makes this run."""
        words = ["smt-hf", "pretrain"]
        for name, value in self.given_values().items():
            if value is True:
                words.append(flag(name))
            elif value is False:
                words.append(flag(name).replace("--", "--no-", 1))
            else:
                words += [flag(name), str(value)]
        return words


FIELDS = {f.name: f for f in dataclasses.fields(RunSpec) if f.name not in ("given", "gave_way")}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def convert(name: str, value: Any, source: str = "") -> Any:
    """A value of a flag, a file or a keyword as its field has it. Raises ValueError for another type.

    Text is read as a command line's words are: YAML takes 2e-3 for text, and leaves the ~ of a path to us.
    """
    kinds = kinds_of(RunSpec, name)
    kind = next(one for one in kinds if one is not type(None))
    if value is None and type(None) in kinds:
        return None
    if name in PATHS and str(value).startswith("~"):
        return os.path.expanduser(value)  # as it is where there is no such user
    if isinstance(value, str) and kind is not str:
        text = value.strip()
        try:
            return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            pass
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif kind is str and isinstance(value, Path):
        return str(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{source}{name} is {value!r}; it must be {KIND_NAMES[kind]}.")


def checked(values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """Values by field name, of the types of the fields; "-" and "_" are the same.

    source: what to say before an error, such as "run.yaml: ". Raises ValueError for a name that is no field, a
    name that is there twice, and a value of another type.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {close[0]}" if close else "smt-hf pretrain --help lists them all"
            raise ValueError(f"{source}{key!r} is no setting of a run; {hint}.")
        if name in found:
            raise ValueError(f"{source}{name} is there twice; give it once.")
        found[name] = convert(name, value, source)
    return found


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def load_preset(name: str, cell: str) -> tuple[str, dict[str, Any]]:
    """What a preset is for, and its values for a cell. Raises ValueError for a name that is none."""
    if name not in preset_names():
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(preset_names())}.")
    content = read_yaml(PRESET_FOLDER / f"{name}.yaml")
    about, cells = content.pop("about"), content.pop("cells", {})
    return about, checked({**content, **cells.get(cell, {})}, f"preset {name}: ")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win over earlier ones; a budget in steps replaces one in minutes, and one in minutes it."""
    merged: dict[str, Any] = {}
    for layer in map(checked, layers):
        for mine, other in (("max_steps", "max_minutes"), ("max_minutes", "max_steps")):
            if layer.get(mine) is not None and other not in layer:
                merged.pop(other, None)
        merged |= layer
    return merged


def make_spec(given: Mapping[str, Any], preset_values: Mapping[str, Any] | None = None) -> RunSpec:
    """Lay what was given over the preset that it names.

    preset_values: what the preset was when a record was written, instead of what it is today.
    Values that were not given change where they do not fit those that were, see `fitting`.
    """
    given = checked(given)
    if given.get("output_dir") is None:
        raise ValueError("output_dir is missing; give the folder of the run.")
    chosen = {"preset": FIELDS["preset"].default, "cell": FIELDS["cell"].default, **given}
    if preset_values is None:
        _, preset_values = load_preset(chosen["preset"], chosen["cell"])
    values = merge(preset_values, given)
    held = {name: values.get(name, f.default) for name, f in FIELDS.items()}
    changes = fitted(held, frozenset(given))
    return RunSpec(**values | changes, given=frozenset(given), gave_way={name: held[name] for name in changes})
