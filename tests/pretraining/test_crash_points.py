"""Killed before, or in the middle of, any one of its operations on files, a run can be gone on with.

A run is carried out once. Before some of its operations on files, or in the middle of them, what is on the disk
is copied: a process that died there would have left that. Each copy is then begun again, where there was
no run yet, or resumed, and must end as the unbroken run.
"""

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers.modeling_utils
from safetensors.torch import load_file
from tiny_training import Stream, metrics, tiny_trainer, untimed

from smt_hf.runs import checkpoints
from smt_hf.runs.record import RunRecord

OPTIONS: dict[str, Any] = {"max_steps": 4, "checkpoint_every": 2, "save_total_limit": 1, "num_evaluations": 2}
NONE_KEPT = {**OPTIONS, "checkpoint_every": 0}


class Witness:
    """Counts the operations on files below `folder`, and copies the folder to `copies` before the chosen ones.

    half: of what such an operation would write, the first half is in the copy.
    """

    def __init__(self, folder: Path, copies: Path, chosen: Callable[[int], bool], half: bool):
        self.folder, self.copies, self.chosen, self.half = folder, copies, chosen, half
        self.names: list[str] = []
        self.aside = False  # what it does itself does not count

    def copied(self, name: str, path: Any) -> Path | None:
        """Count this operation; where the copy made of its path is, if there is one to be left half done."""
        if self.aside or not isinstance(path, str | Path) or not str(path).startswith(str(self.folder)):
            return None
        self.names.append(f"{name} {path}")
        n = len(self.names)
        if not self.chosen(n):
            return None
        copy = self.copies / str(n)
        with self.uncounted():
            if self.folder.exists():
                shutil.copytree(self.folder, copy)
        return copy / Path(path).relative_to(self.folder) if self.half else None

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        self.aside = True
        try:
            yield
        finally:
            self.aside = False

    def operation(self, right: Callable, name: str, place: int = 0) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.copied(name, args[place] if len(args) > place else kwargs.get("filename"))
            return right(*args, **kwargs)

        return wrapped

    def saving(self, right: Callable, name: str) -> Callable:
        def wrapped(content: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            copy = self.copied(name, path)
            right(content, path, *args, **kwargs)
            if copy:
                with self.uncounted():
                    shutil.copyfile(path, copy)
                    os.truncate(copy, os.path.getsize(copy) // 2)

        return wrapped

    def opening(self, right: Callable) -> Callable:
        def wrapped(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            if writes and (copy := self.copied(f"open {mode}", path)):
                with right(copy, mode, *args, **kwargs) as file:
                    file.write(b"\0" if "b" in mode else '{"step": 3, "se')
            return right(path, mode, *args, **kwargs)

        return wrapped

    def removing(self, right: Callable) -> Callable:
        def wrapped(folder: Any, *args: Any, **kwargs: Any) -> None:
            if Path(folder).exists() and (copy := self.copied("rmtree", folder)):
                for path in sorted(path for path in copy.rglob("*") if path.is_file())[:1]:
                    os.truncate(path, 0)
            return right(folder, *args, **kwargs)

        return wrapped

    def claiming(self, right: Callable) -> Callable:
        def wrapped(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT and (copy := self.copied("os.open", path)):
                os.close(right(copy, flags, *args, **kwargs))
            return right(path, flags, *args, **kwargs)

        return wrapped

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("mkdir", "replace", "rename", "unlink", "remove", "rmdir"):
            patch.setattr(os, name, self.operation(getattr(os, name), name))
        patch.setattr(os, "open", self.claiming(os.open))
        patch.setattr(shutil, "rmtree", self.removing(shutil.rmtree))
        opened = self.opening(builtins.open)
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        patch.setattr(checkpoints, "save_file", self.saving(checkpoints.save_file, "save_file"))
        patch.setattr(
            transformers.modeling_utils,
            "safe_save_file",
            self.saving(safetensors.torch.save_file, "save_pretrained"),
        )
        patch.setattr(torch, "save", self.saving(torch.save, "torch.save"))


def train(folder: Path, options: dict[str, Any]) -> bool:
    """Begin a run, or go on with it; whether there was more left to do than to tidy up."""
    trainer = tiny_trainer(folder, Stream(), Stream(), **options)
    record = RunRecord.read(folder)
    if record is not None and record.finished:
        with pytest.raises(ValueError, match="is finished"):
            trainer.train(resume=True)
        return False
    trainer.train(resume=record is not None)
    return True


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict], dict[str, Any]]:
    weights: dict[str, torch.Tensor] = {}
    for name in ("model.safetensors", "teacher/model.safetensors"):
        weights |= {f"{name} {key}": value for key, value in load_file(folder / name).items()}
    record = RunRecord.of_finished(folder)
    counts = {name: getattr(record, name) for name in ("steps", "tokens", "sequential_steps", "final")}
    return weights, untimed(metrics(folder)), counts


def assert_ends_as(folder: Path, unbroken: Any, what: str) -> None:
    weights, lines, counts = outcome(folder)
    assert weights.keys() == unbroken[0].keys(), what
    assert [name for name in weights if not torch.equal(weights[name], unbroken[0][name])] == [], what
    assert lines == unbroken[1], what
    assert counts == unbroken[2], what


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def die_everywhere(tmp_path: Path, options: dict[str, Any], half: bool, every: int, first: int = 1) -> int:
    folder, copies = tmp_path / "run", tmp_path / "copies"
    copies.mkdir()
    witness = Witness(folder, copies, lambda n: n >= first and (n - first) % every == 0, half)
    with pytest.MonkeyPatch.context() as patch:
        witness.patch(patch)
        train(folder, options)
    unbroken, files = outcome(folder), files_of(folder)
    assert not [name for name in files if Path(name).name.startswith(".")]
    points = range(first, len(witness.names) + 1, every)
    for n in points:
        shutil.rmtree(folder)
        if (copies / str(n)).exists():
            (copies / str(n)).rename(folder)
        what = f"killed at {n}: {witness.names[n - 1]}"
        train(folder, options)
        assert_ends_as(folder, unbroken, what)
        assert files_of(folder) ^ files == set(), what
    return len(points)


# Points that once lost work are among them: the first operations, and the last.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("half", "first"), [(False, 1), (True, 4)])
def test_some_points_of_a_run_that_keeps_checkpoints(tmp_path, half, first):
    assert die_everywhere(tmp_path, OPTIONS, half, every=5, first=first) >= 10


@pytest.mark.timeout(900)
def test_some_points_of_a_run_that_keeps_none(tmp_path):
    assert die_everywhere(tmp_path, NONE_KEPT, half=False, every=5, first=2) >= 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("options", [OPTIONS, NONE_KEPT], ids=["kept", "none kept"])
def test_every_point(tmp_path, options, half):
    assert die_everywhere(tmp_path, options, half, every=1) > 60
