# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""Every example runs as it stands, on small inputs, and does what it says."""

import json
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from smt_hf import CELLS, SMTConfig, SMTForCausalLM
from smt_hf.data import byte_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    sizes = {"hidden_size": 32, "num_memory_tokens": 2, "num_readout_layers": 1, "num_attention_heads": 2}
    SMTForCausalLM(SMTConfig(**sizes, eos_token_id=256, pad_token_id=257)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def text_file(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 200, encoding="utf-8")
    return path


@pytest.fixture
def run_example(monkeypatch, capsys):
    def run(name: str, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_python_of_the_readme_works(text_file, monkeypatch, capsys):
    """All blocks, one after another, with a budget of a few steps; Python makes the run of the shell, too."""
    monkeypatch.chdir(text_file.parent)
    text_file.rename("my_text.txt")
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert "".join(blocks).count("max_minutes=10") == 1
    for block in blocks:
        short = (
            block.replace("max_minutes=10", "max_steps=4")
            .replace('"text", dataset', '"tiny", dataset')
            .replace("runs/again", "runs/mine")
        )
        exec(compile(short, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("The :func:`open` function")
    assert Path("prompt.safetensors").stat().st_size < 10_000


def test_there_is_a_test_for_every_example_and_none_is_long():
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    tests = Path(__file__).read_text(encoding="utf-8")
    assert names and all(f'"{name}"' in tests for name in names)
    assert all(len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 80 for name in names)


def test_generate(run_example, run_folder):
    output = run_example("01_generate.py", run_folder)
    assert output.count("greedy:  The value of ") == 1
    assert output.count("batch: ") == 2


def test_continuing_from_a_saved_state_in_a_batch_and_in_a_dialogue(run_example, run_folder):
    output = run_example("02_continue_from_a_state.py", run_folder)
    assert "1750 tokens read into a file of 928 bytes" in output
    for start in ("The first ", "The other ", "The next ", "The last "):
        assert start in output


def test_pretraining_on_a_text_learns_it(run_example, text_file, tmp_path):
    output = run_example("03_pretrain_on_your_text.py", text_file, tmp_path / "run", "8")
    loss = float(output.split("free-running loss: ")[1].split()[0])
    assert loss < 4.5  # 5.6 when nothing has been learned
    AutoModelForCausalLM.from_pretrained(tmp_path / "run")


def test_fine_tuning_with_the_trainer(run_example, run_folder, text_file, tmp_path):
    output = run_example("04_finetune_with_trainer.py", run_folder, text_file, tmp_path / "tuned", "60")
    assert float(output.split("training loss ")[1].split(";")[0]) < 5.2
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


@pytest.mark.ecosystem
@pytest.mark.skipif(not (find_spec("trl") and find_spec("peft")), reason="needs trl and peft")
# trl and peft still use names that transformers is about to rename.
@pytest.mark.filterwarnings("ignore:.*deprecated and will be removed in v6:FutureWarning")
def test_fine_tuning_with_trl_changes_the_cell_alone(run_example, run_folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"The fox {i} jumps over the dog {i + 1}." for i in range(60)), encoding="utf-8"
    )
    (pattern,) = (
        line
        for line in (EXAMPLES / "06_finetune_with_trl_and_lora.py").read_text("utf-8").splitlines()
        if line.startswith("CELL_LAYERS")
    )
    assert pattern in (EXAMPLES.parent / "docs" / "finetuning.md").read_text("utf-8").splitlines()
    output = run_example("06_finetune_with_trl_and_lora.py", run_folder, text, tmp_path / "tuned", "120")
    assert float(output.split("training loss ")[1].split(";")[0]) < 5.5  # 6 before the first step
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder) for folder in (run_folder, tmp_path / "tuned")
    )
    changed = [
        n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not a.equal(b)
    ]
    assert changed and all(name.startswith("model.cell.") for name in changed)


def test_a_cell_of_ones_own(run_example, tmp_path, monkeypatch):
    monkeypatch.delitem(CELLS, "leaky", raising=False)
    output = run_example("05_add_a_cell.py", tmp_path / "run", "3")
    assert "LeakyCell: accuracy " in output


def test_the_notebook_goes_from_the_shipped_model_to_a_trained_cell(tmp_path, monkeypatch, capsys):
    """All of its code, in order, with a budget of seconds."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "notebooks/first_steps.ipynb").read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kinds = [output.get("name", output["output_type"]) for cell in code for output in cell["outputs"]]
    assert kinds == ["stdout", "display_data", "stdout", "stdout"]  # what a reader sees who runs nothing
    cells = ["".join(cell["source"]) for cell in code]
    assert cells.pop(0).startswith("%pip install")
    assert sum("MINUTES = 1.0" in cell for cell in cells) == 1
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell.replace("MINUTES = 1.0", "MINUTES = 0.05"), "first_steps.ipynb", "exec"), names)
    pyplot.close("all")
    assert Path("generators.safetensors").stat().st_size < 10_000
    assert "of the values" in capsys.readouterr().out
    assert type(AutoModelForCausalLM.from_pretrained("runs/leaky").model.cell) is CELLS["moving"]
