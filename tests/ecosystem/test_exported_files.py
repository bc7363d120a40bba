"""`smt-hf export` in onnxruntime and OpenVINO, beside PyTorch."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import CELLS, byte_ids, needs, save_checkpoint, tiny_model

from smt_hf.cli import main
from smt_hf.data import byte_tokenizer
from smt_hf.export.export import export
from smt_hf.export.onnx import onnx_run

pytestmark = [
    *needs("onnx", "onnxruntime", "onnxscript", "openvino"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]

RECIPE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_computes_in_onnxruntime_what_it_does_in_pytorch(cell, tmp_path):
    found, small = export(tiny_model(cell), byte_tokenizer(), "onnx", tmp_path / "out", "a")
    assert found.difference <= 1e-4 and found.tokens == 64 and small is None
    assert {"model.onnx", "program.json", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert os.listdir(tmp_path) == ["out"]


def test_openvino_computes_the_same(tmp_path):
    found, small = export(tiny_model(), byte_tokenizer(), "openvino", tmp_path / "out", "a")
    assert found.difference <= 1e-4 and small is None
    assert (tmp_path / "out" / "model.bin").is_file() and not (tmp_path / "out" / "model.onnx").exists()


def test_an_onnxruntime_that_cannot_run_the_program_is_one_sentence(tmp_path):
    """As one does that is older than the program's version."""
    (tmp_path / "model.onnx").write_bytes(b"not for this runtime")
    with pytest.raises(ValueError, match=r"^onnxruntime [\d.]+ cannot run the program .*; pip install -U onnx"):
        onnx_run(tmp_path / "model.onnx")


def test_int8_is_smaller_and_its_difference_is_told(tmp_path, capsys):
    model = tiny_model(hidden_size=64)
    folder = save_checkpoint(tmp_path / "model", model)
    for name, flags in {"whole": [], "small": ["--int8"]}.items():
        assert main(["export", str(folder), "--to", "onnx", "--output-dir", str(tmp_path / name), *flags]) == 0
    said = capsys.readouterr().out
    assert (
        said.count("float32: the largest difference") == 2 and said.count("int8: the largest difference") == 1
    )
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.5 * sizes[1]


def test_a_cell_that_branches_on_values_is_refused_and_nothing_is_left(tmp_path):
    model = tiny_model()
    cell: Any = model.model.cell
    plain = type(cell).step

    class Branching(type(cell)):  # type: ignore[misc]
        def step(self, memory, inputs):
            return plain(self, memory, inputs) if memory.sum() > 0 else memory

    cell.__class__ = Branching
    with pytest.raises(
        ValueError, match=r"the cell 'gru' cannot be exported .*without branches on their values\."
    ):
        export(model, byte_tokenizer(), "onnx", tmp_path / "out", "a")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_exists_stays_as_it_is(tmp_path):
    with pytest.raises(FileExistsError, match="exists; name a new folder"):
        export(tiny_model(), byte_tokenizer(), "onnx", tmp_path, "a")
    assert os.listdir(tmp_path) == []


@torch.no_grad()
def test_the_documented_recipe_writes_what_the_model_finds_most_probable(tmp_path, monkeypatch):
    model: Any = tiny_model()
    export(model, byte_tokenizer(), "onnx", tmp_path / "onnx", "a")
    recipe = RECIPE.read_text("utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(recipe, names)
    start = torch.full_like(byte_ids("a"), model.config.bos_token_id)
    wanted = model.generate(start, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert names["written"] == wanted[0, 1:].tolist()
