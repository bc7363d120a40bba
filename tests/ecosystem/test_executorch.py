"""`smt-hf export --to executorch`, beside PyTorch."""

import pytest
from tiny_checkpoints import needs, save_checkpoint, tiny_model

from smt_hf.cli import main

pytestmark = [
    *needs("executorch"),
    # Its own imports and its lowering warn of what others deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.mark.parametrize("cell", ["gru", "transformer"])  # the others compute the same, and take as long
def test_a_cell_computes_in_executorch_what_it_does_in_pytorch(cell, tmp_path, capsys):
    folder, out = save_checkpoint(tmp_path / "model", tiny_model(cell)), tmp_path / "out"
    assert main(["export", str(folder), "--to", "executorch", "--output-dir", str(out)]) == 0
    assert "64 of 64 are PyTorch's most probable" in capsys.readouterr().out  # it refuses more than 1e-4
    names = {path.name for path in out.iterdir()}
    assert {"model.pte", "program.json", "tokenizer.json"} <= names and "model.onnx" not in names
