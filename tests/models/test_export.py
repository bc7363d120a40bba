"""`torch.export` through the exporter of `transformers`: the graphs compute what the model does.

The static cache is the one to export: its token count is a tensor, so one decode graph serves every token. A
dynamic state counts in Python, which the graph would fix.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, generate, pad, random_ids, tiny_model
from transformers import GenerationConfig, StaticCache
from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

from smt_hf import SMTForCausalLM
from smt_hf.models.library_names import STATE_NAME

RECIPE = Path(__file__).parents[2] / "docs" / "export.md"


def exported(model: SMTForCausalLM, ids: torch.Tensor, mask: torch.Tensor, dynamic: bool) -> Any:
    """The two programs that `generate` runs: "prefill" for a prompt of this length, and "decode"."""
    export = DynamoExporter().export_for_generation(
        model,
        {"input_ids": ids, "attention_mask": mask},
        DynamoConfig(dynamic=dynamic),  # the batch may have any size; the length of a loop cannot vary
        generation_config=GenerationConfig(cache_implementation="static"),
    )
    return {name: part.program.module() for name, part in export.components.items()}


def empty_state(model: SMTForCausalLM) -> Any:
    return StaticCache(config=model.config, max_cache_len=1)  # a memory needs no length


@torch.no_grad()
def assert_programs_equal_the_model(programs: Any, model: SMTForCausalLM, ids: Any, mask: Any) -> None:
    out = programs["prefill"](input_ids=ids, attention_mask=mask, **{STATE_NAME: empty_state(model)})
    torch.testing.assert_close(out.logits, model(ids, attention_mask=mask).logits, rtol=0, atol=1e-5)
    for step in range(3):
        token = random_ids(len(ids), 1, seed=20 + step)
        ids, mask = torch.cat([ids, token], dim=1), torch.cat([mask, torch.ones_like(token)], dim=1)
        out = programs["decode"](input_ids=token, **{STATE_NAME: out.cache})
        expected = model(ids, attention_mask=mask).logits[:, -1:]
        torch.testing.assert_close(out.logits, expected, rtol=0, atol=1e-5)
        assert int(out.cache.get_seq_length()) == ids.shape[1]


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_prefill_and_decode_compute_what_the_model_does_on_other_inputs(cell):
    model = tiny_model(cell)
    ids, mask = pad([random_ids(4, seed=3), random_ids(3, seed=4)], "left", filler=7)
    programs = exported(model, ids, mask, dynamic=False)
    other, other_mask = pad([random_ids(2, seed=5), random_ids(4, seed=6)], "left", filler=7)
    assert_programs_equal_the_model(programs, model, other, other_mask)


def test_programs_exported_as_dynamic_take_any_batch_size():
    model = tiny_model()
    ids, mask = pad([random_ids(4, seed=3), random_ids(3, seed=4)], "left", filler=7)
    programs = exported(model, ids, mask, dynamic=True)
    for rows in (1, 2, 3, 5):
        ids, mask = pad([random_ids(4 - row % 4, seed=row) for row in range(rows)], "left", filler=7)
        assert_programs_equal_the_model(programs, model, ids, mask)


def test_decoding_alone_reads_a_prompt_of_any_length_after_its_first_token():
    model = tiny_model()
    first = random_ids(1, 1)
    programs = exported(model, first, torch.ones_like(first), dynamic=False)
    ids = random_ids(1, 9, seed=7)
    with torch.no_grad():
        out = programs["prefill"](input_ids=ids[:, :1], **{STATE_NAME: empty_state(model)})
        for token in ids[:, 1:].split(1, dim=1):
            out = programs["decode"](input_ids=token, **{STATE_NAME: out.cache})
        torch.testing.assert_close(out.logits, model(ids).logits[:, -1:], rtol=0, atol=1e-5)


def test_the_documented_recipe_generates_what_the_model_does(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    recipe = RECIPE.read_text("utf-8").split("```python\n")[2].split("```")[0]
    names: dict[str, Any] = {}
    with torch.no_grad():
        # The programs take the state by the name that this version of transformers has for it.
        recipe = recipe.replace("cache=", f"{STATE_NAME}=").replace("path/to/model", tmp_path.as_posix())
        exec(recipe, names)
    expected = generate(model, names["prompt"][:, :5], max_new_tokens=8, do_sample=False)
    assert torch.equal(names["prompt"], expected)
