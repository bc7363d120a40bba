"""ONNX programs for prefill and decode: onnxruntime computes what the model does, from the files alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import CELLS, byte_ids, needs, tiny_model
from transformers import GenerationConfig

from smt_hf import SMTForCausalLM
from smt_hf.models.library_names import STATE_NAME

pytestmark = [
    *needs("onnx", "onnxruntime", "onnxscript"),
    # torch.onnx copies a class of torch that warns of its own renaming.
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]

RECIPE = Path(__file__).parents[2] / "docs" / "export.md"
MEMORY, NUM_TOKENS = (f"{STATE_NAME}.layers.0.{name}" for name in ("memory", "num_tokens"))


def sessions(model: SMTForCausalLM, folder: Path, ids: torch.Tensor, mask: torch.Tensor, dynamic: bool) -> Any:
    """The two programs, saved, and loaded by onnxruntime."""
    import onnxruntime
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    OnnxExporter().export_for_generation(
        model,
        {"input_ids": ids, "attention_mask": mask},
        OnnxConfig(dynamic=dynamic),
        generation_config=GenerationConfig(cache_implementation="static"),
    ).save_pretrained(folder)
    return [onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("prefill", "decode")]


def run(session: Any, feed: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """(logits, the state as the next program takes it)."""
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(None, {k: np.asarray(v) for k, v in feed.items()}), strict=True))
    state = {f"input.{key}": values.get(key, values.get(f"output.{key}")) for key in (MEMORY, NUM_TOKENS)}
    return torch.from_numpy(values["logits"]), state


@torch.no_grad()
def assert_equal_to_the_model(programs: Any, model: SMTForCausalLM, ids: Any, mask: Any) -> None:
    prefill, decode = programs
    logits, state = run(prefill, {"input_ids": ids, "attention_mask": mask})
    torch.testing.assert_close(logits, model(ids, attention_mask=mask).logits, rtol=0, atol=1e-5)
    for step in range(3):
        token = torch.full((len(ids), 1), 65 + step)
        ids, mask = torch.cat([ids, token], dim=1), torch.cat([mask, torch.ones_like(token)], dim=1)
        logits, state = run(decode, {"input_ids": token, **state})
        expected = model(ids, attention_mask=mask).logits[:, -1:]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        assert int(state[f"input.{NUM_TOKENS}"]) == ids.shape[1]


def padded(*texts: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), padded on the left with some byte."""
    width = max(map(len, texts))
    ids = torch.cat([byte_ids(text.rjust(width, "~")) for text in texts])
    return ids, torch.tensor([[int(i >= width - len(text)) for i in range(width)] for text in texts])


@pytest.mark.parametrize("cell", CELLS)
def test_prefill_and_decode_compute_what_the_model_does_on_other_inputs(cell, tmp_path):
    model = tiny_model(cell)
    programs = sessions(model, tmp_path, *padded("abcde", "fgh"), dynamic=False)
    assert_equal_to_the_model(programs, model, *padded("zy", "vwxyz"))


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_programs_exported_as_dynamic_take_any_batch_size(cell, tmp_path):
    model = tiny_model(cell)
    programs = sessions(model, tmp_path, *padded("abcde", "fgh"), dynamic=True)
    for texts in (("vwxyz",), ("z", "vwxyz", "xy"), ("abcde",) * 5):
        assert_equal_to_the_model(programs, model, *padded(*texts))


def test_the_documented_recipe_writes_what_the_model_generates(tmp_path):
    model: Any = tiny_model()
    recipe = RECIPE.read_text("utf-8").split("```python\n")[3].split("```")[0]
    names: dict[str, Any] = {"model": model, "torch": torch, "GenerationConfig": GenerationConfig}
    exec(recipe.replace("path/to/onnx", tmp_path.as_posix()), names)
    with torch.no_grad():
        expected = model.generate(names["prompt"], max_new_tokens=8, do_sample=False)
    assert names["written"].tolist() == expected.tolist()
