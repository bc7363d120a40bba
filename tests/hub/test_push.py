"""Uploading a run: the whole model in one commit, and nothing that is for the run itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from smt_hf.hub.push import push

RUN = [
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "run.json",
    "metrics.jsonl",
    "teacher/config.json",
    "teacher/model.safetensors",
    "checkpoints/step_0000500/model.safetensors",
    "checkpoints/step_0000500/optimizer.pt",
    "checkpoints/.step_0001000.part/model.safetensors",
]


class FakeHub:
    """Stands in for HfApi, and remembers what it was asked to do."""

    calls: list[tuple[str, dict[str, Any]]]
    uploaded: set[str]

    def __init__(self) -> None:
        FakeHub.calls, FakeHub.uploaded = [], set()

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        full_name = repo_id if "/" in repo_id else f"me/{repo_id}"

        class Address(str):
            pass

        address = Address(f"https://huggingface.co/{full_name}")
        address.repo_id = full_name  # type: ignore[attr-defined]
        return address

    def upload_folder(self, *, folder_path: Path, ignore_patterns: Any = None, **options: Any) -> None:
        self.calls.append(("upload_folder", options))
        files = [str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()]
        FakeHub.uploaded = set(filter_repo_objects(files, ignore_patterns=ignore_patterns))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    return FakeHub


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in RUN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_neither_checkpoints_nor_metrics_are_uploaded_and_all_else_is(hub, run):
    push(run, "me/verse-rnn")
    assert hub.uploaded == {name for name in RUN if not name.startswith(("checkpoints/", "metrics.jsonl"))}


@pytest.mark.parametrize("private", [True, False])
def test_the_repository_is_made_if_need_be_and_one_commit_goes_to_it(hub, run, private):
    address = push(run, "verse-rnn", private=private)
    assert address == "https://huggingface.co/me/verse-rnn"
    (created, options), (uploaded, where) = hub.calls
    assert (created, uploaded) == ("create_repo", "upload_folder")
    assert options["exist_ok"] is True and bool(options["private"]) is private
    assert where == {"repo_id": "me/verse-rnn"}  # the full name, as the Hub answered


def test_a_repository_that_is_there_is_not_made_public_or_private_by_pushing(hub, run):
    """None leaves an organisation's default alone; False would ask for a public one."""
    push(run, "me/verse-rnn")
    assert hub.calls[0][1]["private"] is None


def test_local_files_are_left_as_they_are(hub, run):
    push(run, "me/verse-rnn")
    assert sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()) == sorted(RUN)


def test_the_fake_above_takes_what_the_real_one_takes():
    """A renamed argument of the library would otherwise go unnoticed."""
    import inspect

    api = SimpleNamespace(
        create=inspect.signature(huggingface_hub.HfApi.create_repo).parameters,
        upload=inspect.signature(huggingface_hub.HfApi.upload_folder).parameters,
    )
    assert {"repo_id", "private", "exist_ok"} <= set(api.create)
    assert {"repo_id", "folder_path", "ignore_patterns"} <= set(api.upload)
