"""RunRecord: what is known of a run, as run.json keeps it. Nothing else reads or writes that file."""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .arguments import SMTPretrainingArguments
from .config import check_types, read_json, read_yaml
from .environment import environment
from .files import write_atomic
from .spec import DATA_FIELDS, FIELDS, RunSpec, checked

FILE = "run.json"
PHASE = ("name", "start", "end", "learning_rate")
KINDS = ("text", "image", "task")
FORMAT = 2  # raised when a field changes its meaning; 1, of smt-hf 0.1, has no number


@dataclass
class RunRecord:
    """spec: every setting, of which `given` were given and the others are the preset's or defaults.
    model, teacher: their configurations; None for a run without a teacher. phases: name, start and end in
    progress (0 … 1), learning_rate. final: free-running metrics at the end. seconds: of training.
    finishing: what is done of the work after the last step, so that a resumed run does only the rest.
    """

    spec: dict[str, Any]
    given: list[str]
    method: str
    cell: str
    seed: int
    phases: list[dict[str, Any]]
    model: dict[str, Any]
    teacher: dict[str, Any] | None
    parameters: int
    state_bytes: int
    dataset: str
    data_kind: str  # text, image or task
    data_fingerprint: str | None
    sequence_length: int
    bytes_per_token: float | None  # None: of a task, whose tokens are no text
    output_dir: str
    teacher_fingerprint: str | None = None  # of a given teacher
    status: str = "running"  # or finished: the model and its card are whole
    finishing: list[str] = field(default_factory=list)  # of evaluation, model, texts, card, push
    versions: dict[str, str | None] = field(default_factory=dict)
    git_commit: str | None = None
    machine: str = ""
    command: list[str] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    sequential_steps: int = 0
    final: dict[str, Any] = field(default_factory=dict)
    prompt: str = ""  # symbols to try the model with, if it does not read text
    samples: list[dict[str, str]] = field(default_factory=list)
    card: str = ""  # fingerprint of README.md as the run wrote it, to see whether it was edited since
    format: int = FORMAT

    @classmethod
    def read(cls, folder: str | Path) -> "RunRecord | None":
        """The record of a run folder, None where there is none.

        Raises ValueError for a file that is damaged, or that a newer version wrote.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        content = read_json(path)
        number = content.get("format", 1)
        if not isinstance(number, int) or number > FORMAT:
            raise ValueError(f"{path} has format {number!r}, this version reads up to {FORMAT}; update smt-hf.")
        if number == 1:
            content = of_version_1(content)
        names = {f.name: f for f in dataclasses.fields(cls)}
        needed = [name for name, f in names.items() if required(f) and name not in content]
        if needed:
            raise ValueError(f"{path} lacks {', '.join(needed)}; it is no record of a run.")
        known = {name: value for name, value in content.items() if name in names}
        check_types(known, typing.get_type_hints(cls), path)
        if known["data_kind"] not in KINDS:
            raise ValueError(
                f"{path} has data_kind {known['data_kind']!r}; it must be one of {', '.join(KINDS)}."
            )
        checked(
            {n: value for n, value in known["spec"].items() if n in FIELDS and value is not None}, f"{path}: "
        )
        return cls(**known)

    @classmethod
    def of_finished(cls, folder: str | Path) -> "RunRecord":
        """The record of a finished run. Raises ValueError for a folder without one."""
        record = cls.read(folder)
        if record is None:
            raise ValueError(f"{folder} holds no run (no {FILE}); give a folder that smt-hf pretrain wrote.")
        if not record.finished:
            raise ValueError(f"the run in {folder} is {record.status}; finish it with --resume first.")
        return record

    def write(self, folder: Path) -> None:
        write_atomic(folder / FILE, json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n")

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def data(self) -> dict[str, Any]:
        """What names the data, for `load_data`."""
        from smt_hf.data import only_of_tables  # here, so that help needs no torch

        named = {name: self.spec[name] for name in DATA_FIELDS if self.spec.get(name) is not None}
        # What versions before 0.2 took though it changed nothing is refused now, and their runs are not.
        for name in only_of_tables(named["dataset"], named) if "dataset" in named else ():
            del named[name]
        return named

    @property
    def hub_name(self) -> str:
        """What the snippets of the run's own card load: its repository if it has one, else its folder."""
        return self.spec.get("hub_model_id") or Path(self.output_dir).name

    def as_config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what was given, what else held): the run again, for `make_spec`.

        Raises ValueError for a run of a data set that only the Python that started it can make.
        """
        if "dataset" not in self.spec:
            raise ValueError(
                f"the run in {self.output_dir} was given its data set in Python; start it there again."
            )
        given = {name: self.spec[name] for name in self.given}
        rest = {name: value for name, value in self.spec.items() if name not in given and value is not None}
        return given, rest


def required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def of_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """A record of smt-hf 0.1, which kept the training arguments, the sizes and the data in three places."""
    model, teacher = content.get("model") or {}, content.get("teacher") or {}
    sizes = {name: model[name] for name in FIELDS if name in model}
    sizes |= {
        name: teacher[name] for name in ("context_length", "future_length", "encoder_type") if name in teacher
    }
    if "num_hidden_layers" in teacher:
        sizes["num_encoder_layers"] = teacher["num_hidden_layers"]
    data = content.get("data") or {}
    arguments = {name: value for name, value in content.get("arguments", {}).items() if name in FIELDS}
    spec = {**arguments, **sizes, **data, "cell": content.get("cell", "gru")}
    if "preset" in content:
        spec |= {"preset": content["preset"], "sequence_length": content.get("sequence_length")}
    return {**content, "format": FORMAT, "spec": spec, "given": list(spec)}


def new_record(model, teacher, args: SMTPretrainingArguments, phases, data, **known: Any) -> RunRecord:
    """What is known of a run before it starts; its costs and results are added when it has finished.

    data: the training data, a `SequenceDataset`. known: fields that the caller knows better.
    """
    spec = args.to_dict()
    values: dict[str, Any] = {
        "spec": spec,
        "given": sorted(args.given) if isinstance(args, RunSpec) else list(spec),
        "method": args.method,
        "cell": model.config.cell,
        "seed": args.seed,
        "phases": [{name: getattr(phase, name) for name in PHASE} for phase in phases],
        "model": model.config.to_diff_dict(),
        "teacher": teacher.config.to_diff_dict() if teacher is not None else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": 4 * model.config.num_memory_tokens * model.config.hidden_size,
        "dataset": data.name,
        "data_kind": data.kind,
        "data_fingerprint": data.fingerprint,
        "sequence_length": data.sequence_length,
        "bytes_per_token": data.bytes_per_token,
        "output_dir": str(args.output_dir),
        **environment(),
        **known,
    }
    return RunRecord(**values)


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The settings in a config file, and of a run.json what else held when it was written, else None.

    Raises ValueError, naming the file, for anything that is no setting; FileNotFoundError for no file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no config file {path}.")
    if path.name == FILE:
        record = RunRecord.read(path.parent)
        assert record is not None
        return record.as_config()
    return checked(read_yaml(path), f"{path}: "), None
