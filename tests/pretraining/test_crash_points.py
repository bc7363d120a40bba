"""Killed before, or in the middle of, any one of its operations on files, a run can be gone on with.

A run is carried out once to count these operations. For every n it is then carried out again and dies at the
n-th: nothing that it tries after that reaches the disk. What is left is begun again, where there was no run
yet, or resumed, and must end as the unbroken run.
"""

import builtins
import io
import os
import shutil
from collections.abc import Callable
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


class Killed(BaseException):
    """Nothing in the package catches this one."""


class Mortal:
    """Counts operations on files below `folder`, and dies at the n-th (0: never) and at all that follow.

    half: of what the n-th would write, the first half is written.
    """

    def __init__(self, folder: Path, n: int = 0, half: bool = False):
        self.folder, self.n, self.half, self.done = folder, n, half, 0
        self.names: list[str] = []

    def here(self, path: Any) -> bool:
        return isinstance(path, str | Path) and str(path).startswith(str(self.folder))

    def dies(self, name: str, path: Any) -> bool:
        if not self.here(path):
            return False
        self.done += 1
        self.names.append(f"{name} {path}")
        if self.n and self.done > self.n:
            raise Killed
        return self.done == self.n

    def operation(self, right: Callable, name: str, place: int = 0) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.dies(name, args[place] if len(args) > place else kwargs.get("filename")):
                raise Killed
            return right(*args, **kwargs)

        return wrapped

    def saving(self, right: Callable, name: str) -> Callable:
        def wrapped(content: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            dies = self.dies(name, path)
            if not dies or self.half:
                right(content, path, *args, **kwargs)
            if dies:
                if self.half:
                    os.truncate(path, os.path.getsize(path) // 2)
                raise Killed

        return wrapped

    def opening(self, right: Callable) -> Callable:
        def wrapped(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            if not writes or not self.dies(f"open {mode}", path):
                return right(path, mode, *args, **kwargs)
            if self.half:
                with right(path, mode, *args, **kwargs) as file:
                    file.write(b"\0" if "b" in mode else '{"step": 3, "se')
            raise Killed

        return wrapped

    def removing(self, right: Callable) -> Callable:
        def wrapped(folder: Any, *args: Any, **kwargs: Any) -> None:
            if not Path(folder).exists() or not self.dies("rmtree", folder):
                return right(folder, *args, **kwargs)
            for path in sorted(Path(folder).rglob("*"))[:1] if self.half else []:
                os.truncate(path, 0)
            raise Killed

        return wrapped

    def claiming(self, right: Callable) -> Callable:
        def wrapped(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT and self.dies("os.open", path):
                if self.half:
                    os.close(right(path, flags, *args, **kwargs))
                raise Killed
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


def die_at(folder: Path, options: dict[str, Any], n: int, half: bool = False) -> list[str]:
    """The operations on files of a run that dies at the n-th of them (0: it lives)."""
    mortal = Mortal(folder, n, half)
    with pytest.MonkeyPatch.context() as patch:
        mortal.patch(patch)
        if n == 0:
            train(folder, options)
        else:
            with pytest.raises(Killed):
                train(folder, options)
    return mortal.names


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
    names = die_at(tmp_path / "unbroken", options, 0)
    unbroken, files = outcome(tmp_path / "unbroken"), files_of(tmp_path / "unbroken")
    assert not [name for name in files if Path(name).name.startswith(".")]
    points = range(first, len(names) + 1, every)
    for n in points:
        folder = tmp_path / f"run {n}"
        died = die_at(folder, options, n, half)
        what = f"killed at {n}: {died[n - 1]}"
        train(folder, options)
        assert_ends_as(folder, unbroken, what)
        assert files_of(folder) ^ files == set(), what
    return len(points)


# Points that once lost work are among them: the first operations, and the last.
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("half", "first"), [(False, 1), (True, 4)])
def test_some_points_of_a_run_that_keeps_checkpoints(tmp_path, half, first):
    assert die_everywhere(tmp_path, OPTIONS, half, every=7, first=first) >= 10


@pytest.mark.timeout(900)
def test_some_points_of_a_run_that_keeps_none(tmp_path):
    assert die_everywhere(tmp_path, NONE_KEPT, half=False, every=6, first=2) >= 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("options", [OPTIONS, NONE_KEPT], ids=["kept", "none kept"])
def test_every_point(tmp_path, options, half):
    assert die_everywhere(tmp_path, options, half, every=1) > 60
