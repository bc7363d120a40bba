"""Imports run one way between the rooms of `smt_hf`, and no file outgrows a reader."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = "smt_hf"
MAX_LINES = 320

# room -> the other rooms it may import from
ROOMS: dict[str, set[str]] = {
    "models": set(),
    "data": {"example"},
    "runs": {"models", "data"},
    "evaluation": {"models", "data"},
    "reporting": {"models", "data", "runs"},
    "hub": {"models", "data", "runs"},
    "pretraining": {"models", "data", "evaluation", "hub", "runs"},
    "experiments": {"models", "data", "evaluation", "pretraining", "runs"},
    "benchmark": {"models", "data", "pretraining", "runs"},
    "export": {"models", "runs"},
    "serving": {"models"},
    "example": {"models"},
    "cli": {
        "benchmark", "models", "data", "evaluation", "hub", "pretraining", "experiments", "runs", "reporting",
        "serving", "example", "export",
    },
    "__init__": {"models", "pretraining", "runs", "example"},
    "__main__": {"cli"},
}  # fmt: skip
# room -> how many of its own files may stand on one another: a reader follows no longer chain of imports
FLOORS = {"reporting": 3, "experiments": 3}

# The files in models/ travel with every checkpoint, so they need nothing that transformers does
# not already bring: it cannot be installed without huggingface_hub and safetensors.
MODELS_MAY_IMPORT = {"torch", "transformers", "huggingface_hub", "safetensors"} | set(sys.stdlib_module_names)


def imports(tree: ast.AST, package: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, list[str]]]:
    """Every import statement, also inside functions, with the absolute names it may bind.

    `from ..data import windows` inside smt_hf.pretraining gives ["smt_hf.data.windows"].
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield node, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = resolve_name(relative, package) if node.level else relative
            yield node, [f"{base}.{alias.name}" for alias in node.names]


def breaks_models_rule(node: ast.Import | ast.ImportFrom, names: list[str], room: Path) -> bool:
    """In models/ only `from .sibling import name`, and the few libraries allowed there."""
    if isinstance(node, ast.ImportFrom) and node.level:
        module = node.module or ""
        return node.level != 1 or not (room / f"{module}.py").is_file()
    return any(name.split(".")[0] not in MODELS_MAY_IMPORT for name in names)


def breaks_room_rule(name: str, room: str) -> bool:
    """True when `room` may not import `name`, an absolute dotted name."""
    top, *rest = name.split(".")
    if top != PACKAGE:
        return False
    if not rest or rest[0] not in ROOMS:
        # The package itself re-exports names from rooms; only its version belongs to nobody.
        return room != "cli" and rest[:1] != ["version"]
    return rest[0] != room and rest[0] not in ROOMS[room]


def violations(root: Path) -> list[str]:
    """One line for everything under the package folder `root` that breaks a rule."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        where, room = path.relative_to(root).as_posix(), parts[0]
        if parts == ("version",):
            continue
        if room not in ROOMS:
            found.append(f"{where}: in no room; the rooms are {', '.join(sorted(ROOMS))}")
            continue
        if room == "models" and len(parts) != 2:
            found.append(f"{where}: models/ is flat")
            continue
        text = path.read_text("utf-8")
        if (length := len(text.splitlines())) > MAX_LINES:
            found.append(f"{where}: {length} lines, at most {MAX_LINES}")
        for node, names in imports(ast.parse(text), ".".join((PACKAGE, *parts[:-1]))):
            if room == "models":
                broken = breaks_models_rule(node, names, root / "models")
            else:
                broken = any(breaks_room_rule(name, room) for name in names)
            if broken:
                found.append(f"{where}:{node.lineno}: {room} may not `{ast.unparse(node)}`")
    return found


def floors(room: Path) -> dict[str, int]:
    """File of a room -> 1 where it imports none of the others, else one more than the highest it imports.

    Raises RecursionError for files that import one another in a circle.
    """
    siblings: dict[str, set[str]] = {}
    for path in sorted(room.glob("*.py")):
        found = imports(ast.parse(path.read_text("utf-8")), f"{PACKAGE}.{room.name}")
        names = {
            name.split(".")[2]
            for _, several in found
            for name in several
            if name.startswith(f"{PACKAGE}.{room.name}.")
        }
        siblings[path.stem] = {name for name in names if (room / f"{name}.py").is_file()}

    def floor(name: str) -> int:
        return 1 + max(map(floor, siblings[name]), default=0)

    return {name: floor(name) for name in siblings}


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write `files` (path -> source) under a package folder and return it."""
    for name, source in files.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    return root / PACKAGE


def test_the_package_keeps_the_rules() -> None:
    root = Path(__file__).resolve().parent.parent / PACKAGE
    assert (root / "models").is_dir(), "nothing to check"
    assert violations(root) == []


@pytest.mark.parametrize(("room", "most"), FLOORS.items())
def test_a_room_has_no_more_floors_than_a_reader_can_follow(room: str, most: int) -> None:
    found = floors(Path(__file__).resolve().parent.parent / PACKAGE / room)
    assert found and max(found.values()) <= most, found


def test_floors_are_counted_along_imports(tmp_path: Path) -> None:
    files = {
        "data/a.py": "import json",
        "data/b.py": "from .a import x\nfrom ..models import c",
        "data/c.py": f"def f():\n    from {PACKAGE}.data.b import y\nfrom .a import x",
        "data/d.py": "from . import c",
    }
    assert floors(plant(tmp_path, files) / "data") == {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("models/a.py", "import smt_hf"),
        ("models/a.py", "from smt_hf.models.b import x"),
        ("models/a.py", "from . import b"),
        ("models/a.py", "from .missing import x"),
        ("models/a.py", "from ..data import x"),
        ("models/a.py", "import numpy"),
        ("models/a.py", "def f():\n    from datasets import Dataset"),
        ("models/deep/a.py", "import torch"),
        ("data/a.py", "from ..models.b import x"),
        ("data/a.py", "from .. import models"),
        ("data/a.py", "from smt_hf import SMTConfig"),
        ("evaluation/a.py", "from ..pretraining import x"),
        ("evaluation/metrics/bits/a.py", "from ....hub import x"),
        ("hub/a.py", "import smt_hf.evaluation.windows"),
        ("runs/a.py", "from ..evaluation import x"),
        ("reporting/a.py", "from smt_hf.experiments.recipes import EXPERIMENTS"),
        ("reporting/a.py", "def f():\n    from ..pretraining.presets import PRESETS"),
        ("pretraining/a.py", "from ..cli import main"),
        ("pretraining/a.py", "if True:\n    def f():\n        import smt_hf.cli"),
        ("__init__.py", "from .cli import main"),
        ("utils.py", "import torch"),
        ("data/a.py", "x = 1\n" * (MAX_LINES + 1)),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, source: str) -> None:
    found = violations(plant(tmp_path, {"models/b.py": "x = 1\n", name: source}))
    assert len(found) == 1
    assert found[0].startswith(name)


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from .models.a import y\nfrom .pretraining.trainer import t",
        "models/__init__.py": "from .a import y",
        "models/a.py": "import math\nimport torch.nn.functional as F\nfrom .b import x\ny = x",
        "models/b.py": "from transformers import Cache\nx = 1",
        "data/a.py": "import numpy\nfrom .b import z",
        "data/b.py": "from . import c",
        "evaluation/a.py": "from ..data import a\nfrom smt_hf.models import b",
        "evaluation/metrics/bits/a.py": "from ...b import x\nfrom ....models.b import x",
        "hub/a.py": "from ..version import __version__\nfrom ..models.b import x",
        "pretraining/trainer.py": "from .. import data, evaluation, hub, models",
        "cli.py": "import smt_hf\nfrom smt_hf import SMTConfig\nfrom .pretraining import trainer",
        "cli/run.py": "from . import flags\nfrom ..data import a",
        "data/long.py": "x = 1\n" * MAX_LINES,
    }
    assert violations(plant(tmp_path, files)) == []


def test_the_page_of_the_architecture_has_a_row_for_each_room_and_names_files_that_are_there() -> None:
    root = Path(__file__).resolve().parent.parent
    text = (root / "docs" / "architecture.md").read_text("utf-8")
    rooms = {path.name for path in (root / PACKAGE).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {row[1] for row in re.finditer(r"^\| `(\w+)/` \|", text, re.MULTILINE)} == rooms
    named = re.findall(rf"`((?:{'|'.join(rooms)})/[\w*/]+\.\w+)`", text)
    assert named and [name for name in named if not list((root / PACKAGE).glob(name))] == []
