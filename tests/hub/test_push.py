"""What a push takes and what it refuses, before the Hub comes into it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade_record import a_record
from safetensors.torch import save_file

from smt_hf import CELLS, MemoryCell, register_cell
from smt_hf.cli import main
from smt_hf.hub.push import class_stays_behind, difference, files_to_upload
from smt_hf.hub.tokens import masked

NEEDED = ("README.md", "config.json", "model.safetensors")


def write_run(folder: Path, *names: str, **changes: Any) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    folder.mkdir(parents=True, exist_ok=True)
    a_record(**changes).write(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """The one line with which `smt-hf push` turns the folder down, which it does without any network."""
    assert main(["push", str(folder), "--repo-id", "me/verse"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("smt-hf push: error: ") and str(folder) in line
    return line


def test_a_folder_without_a_finished_run_is_refused(tmp_path, capsys):
    assert "no run in" in refused(capsys, tmp_path / "missing")
    assert "no run in" in refused(capsys, tmp_path)
    assert "not finished" in refused(capsys, write_run(tmp_path, *NEEDED, status="running"))
    write_run(tmp_path)
    for name in NEEDED:
        (tmp_path / name).unlink()
        assert f"lacks {name}" in refused(capsys, tmp_path)
        write_run(tmp_path, name)


def test_files_of_the_teacher_do_not_stand_in_for_the_models(tmp_path, capsys):
    write_run(tmp_path, "README.md", "teacher/config.json", "teacher/model.safetensors")
    assert "lacks config.json" in refused(capsys, tmp_path)


def test_weights_in_several_files_and_other_tokenizers_are_taken(tmp_path):
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    names = ["README.md", "config.json", "model.safetensors.index.json", *parts, "merges.txt", "spiece.model"]
    names += ["chat_template.jinja", "vocab.json"]
    found = files_to_upload(write_run(tmp_path, *names))
    assert {path.name for path in found} == {*names, "run.json"}


def test_code_is_what_the_config_names_and_that_imports(tmp_path):
    write_run(tmp_path, *NEEDED, "notes.py", "setup.py")
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_smt.SMTModel"}}))
    (tmp_path / "modeling_smt.py").write_text("import os\nfrom .layers import Block\n")
    (tmp_path / "layers.py").write_text("def f():\n    from .cells import CELLS\n")
    (tmp_path / "cells.py").write_text("")
    (tmp_path / "sub").mkdir()
    found = files_to_upload(tmp_path)
    assert {path.name for path in found if path.suffix == ".py"} == {"modeling_smt.py", "layers.py", "cells.py"}


@pytest.mark.parametrize("name", ["LICENSE", "states/prompt.safetensors", "vocab.txt"])
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_taken(tmp_path, capsys, name):
    run = write_run(tmp_path / "run", *NEEDED)
    (tmp_path / "secret").write_text("private")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(tmp_path / "secret")
    line = refused(capsys, run)
    assert name in line and str(tmp_path / "secret") in line
    (run / name).unlink()
    (run / name).symlink_to(run / "README.md")
    assert run / name in files_to_upload(run)


def test_a_folder_that_is_a_link_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "run", *NEEDED)
    write_run(tmp_path / "other", "model.safetensors")
    (run / "teacher").symlink_to(tmp_path / "other")
    assert "teacher" in refused(capsys, run)


TOKEN = "hf_" + "abcDEF123456"


@pytest.mark.parametrize(
    "text", [f"Authorization: Bearer {TOKEN}", f"?token={TOKEN}&x", "Bearer my-own.token, x"]
)
def test_tokens_are_masked_in_what_is_said(text, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another-token-of-mine")
    said = masked(f"{text} another-token-of-mine")
    assert TOKEN not in said and "my-own.token" not in said and "of-mine" not in said and "***" in said
    assert masked("the token of me may only read") == "the token of me may only read"


def test_an_error_that_shows_a_token_is_told_without_it(tmp_path, capsys, monkeypatch):
    def fail(*_: Any) -> None:
        raise ValueError(f"bad header Bearer {TOKEN}")

    monkeypatch.setattr("smt_hf.hub.push.files_to_upload", fail)
    assert main(["push", str(tmp_path), "--repo-id", "x", "--dry-run"]) == 2
    assert TOKEN not in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        *(
            "checkpoints/step_0000500/model.safetensors",
            "metrics.jsonl",
            "pytorch_model.bin",
            "training_args.bin",
        ),
        *(
            ".env.py",
            ".config.json.part",
            "teacher/.model.safetensors",
            "smt-hf/events.out",
            "notes.txt",
            "my.json",
        ),
    ],
)
def test_what_is_no_part_of_the_model_stays_at_home(tmp_path, name):
    found = files_to_upload(write_run(tmp_path, *NEEDED, name))
    assert {path.name for path in found} == {*NEEDED, "run.json"}


def test_a_cell_of_ones_own_is_named_in_one_line(tmp_path, capsys):
    class OwnCell(MemoryCell):
        """Not part of the package, so its code is not among the files that travel."""

    register_cell("own", OwnCell)
    try:
        for cell in ("own", "my_module:Cell"):  # registered here, and not
            write_run(tmp_path, *NEEDED, cell=cell)
            (tmp_path / "config.json").write_text(json.dumps({"cell": "my_module:Cell"}))
            save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
            assert main(["push", str(tmp_path), "--repo-id", "x", "--dry-run"]) == 0
            line = capsys.readouterr().out.splitlines()[-1]
            assert f"'{cell}'" in line and "does not travel" in line and "register_cell" in line
    finally:
        del CELLS["own"]
    assert [cell for cell in CELLS if class_stays_behind(cell)] == []


def test_another_model_is_told_by_its_architecture_alone():
    config = {"model_type": "smt", "cell": "gru", "hidden_size": 8, "transformers_version": "5.23.0"}
    assert difference({**config, "transformers_version": "5.24.0", "dtype": "float32"}, config) == ""
    assert difference({**config, "cell": "lstm"}, config) == "cell 'lstm', yours 'gru'"
    assert difference({**config, "architectures": ["SMTForCausalLM"]}, config) == ""  # not known before saving
    assert "hidden_size None, yours 8" in difference({"model_type": "smt", "cell": "gru"}, config)
