"""The state under both of its names, on every version of transformers; what the code relies on is checked."""

import copy
import inspect
import logging
import os
import warnings
from typing import Any

import pytest
import torch
import transformers
import warm
from test_generation import greedy, prompt, talking_model
from tiny_models import generate, is_one_sentence, memory_of, random_ids, tiny_model

from smt_hf import SMTConfig, SMTForCausalLM, SMTModel
from smt_hf.models import library_names
from smt_hf.models.library_names import (
    RELIED_ON,
    STATE_NAME,
    STATE_NAMES,
    TESTED_TRANSFORMERS,
    check_library,
    missing_names,
)
from smt_hf.models.state_cache import MemoryLayer

NAMES = pytest.mark.parametrize("name", STATE_NAMES)


def test_the_version_at_hand_is_one_of_those_that_the_code_says_it_was_tested_with():
    assert transformers.__version__.rpartition(".")[0] in TESTED_TRANSFORMERS


@NAMES
@torch.no_grad()
def test_both_classes_take_and_return_the_state_by_either_name(name):
    model, ids = tiny_model(), random_ids(2, 6)
    for each in (model, model.model):
        out = each(ids[:, :4])
        state = getattr(out, name)
        assert state is out[name] is out[1]
        later = each(ids[:, 4:], **{name: state})
        assert getattr(later, name) is state and state.get_seq_length() == 6
        torch.testing.assert_close(later[0], each(ids)[0][:, 4:], rtol=0, atol=1e-5)


@NAMES
@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}, {"prompt_lookup_num_tokens": 2}])
def test_generate_takes_and_returns_the_state_by_either_name(name, options):
    model = talking_model()
    details: dict[str, Any] = dict(max_new_tokens=6, do_sample=False, return_dict_in_generate=True)
    first = generate(model, prompt(), **details)
    state = getattr(first, name)
    new = first.sequences[:, state.get_seq_length() :]
    mask = torch.ones_like(first.sequences)
    second = generate(model, new, attention_mask=mask, **details, **options, **{name: copy.deepcopy(state)})
    assert torch.equal(second.sequences[:, 1:], greedy(model, prompt(), 12)[:, -6:])
    assert getattr(second, name).get_seq_length() == 16


@NAMES
@torch.no_grad()
def test_prefill_and_saved_states_take_either_name(name, tmp_path):
    model, ids = tiny_model(), random_ids(1, 8)
    first = model.prefill(ids[:, :3])
    second = model.prefill(ids[:, 3:], **{name: getattr(first, name)})
    expected = memory_of(model(ids).cache)
    torch.testing.assert_close(memory_of(second.cache), expected, rtol=0, atol=1e-3)
    state: dict[str, Any] = {name: second.cache}
    model.save_state(path=tmp_path / "state", **state)
    assert torch.equal(memory_of(model.load_state(tmp_path / "state")), memory_of(second.cache))


def test_both_names_at_once_are_one_sentence():
    model = tiny_model()
    state: Any = model(random_ids(1, 3)).cache
    both: dict[str, Any] = dict(zip(STATE_NAMES, (state, copy.deepcopy(state)), strict=True))
    calls = [
        lambda: model(random_ids(1, 2), **both),
        lambda: model.model(random_ids(1, 2), **both),
        lambda: generate(model, random_ids(1, 2), max_new_tokens=2, **both),
        lambda: model.prefill(random_ids(1, 2), **both),
    ]
    for call in calls:
        with pytest.raises(ValueError) as error:
            call()
        assert is_one_sentence(error.value, "cache", "past_key_values")
    with torch.no_grad():  # a name that says nothing, or the same, is no contradiction
        assert model(random_ids(1, 2), cache=state, past_key_values=None).cache is state
        assert model(random_ids(1, 2), cache=state, past_key_values=state).cache is state


def test_the_old_name_is_taken_without_a_deprecation_warning(caplog, monkeypatch):
    """And our own use of the new one, in every loop, gives none either."""
    library = logging.getLogger("transformers")
    monkeypatch.setattr(library, "propagate", True)
    monkeypatch.setattr(library, "level", logging.WARNING)
    library.manager._clear_cache()  # type: ignore[attr-defined]  # loggers remember what they are allowed
    once: Any = library.getChild("utils.generic").warning_once  # type: ignore[attr-defined]
    once.cache_clear()
    model = talking_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in (
            {},
            {"num_beams": 2},
            {"cache_implementation": "static"},
            {"prompt_lookup_num_tokens": 2},
        ):
            ids = prompt()
            generate(model, ids, max_new_tokens=4, do_sample=False, return_dict_in_generate=True, **options)
            state = model(ids, use_cache=True).cache
            mask = torch.ones(1, 2 * ids.shape[1])
            generate(model, ids, attention_mask=mask, past_key_values=state, max_new_tokens=4, do_sample=False)
    assert "deprecated" not in caplog.text


def test_forward_names_the_state_as_the_library_of_today_does():
    for cls in (SMTModel, SMTForCausalLM):
        parameters = list(inspect.signature(cls.forward).parameters)
        assert parameters[:5] == ["self", "input_ids", "attention_mask", "cache", "inputs_embeds"]
    assert set(SMTForCausalLM._skip_keys_device_placement) == set(STATE_NAMES)
    assert set(SMTConfig.keys_to_ignore_at_inference) == set(STATE_NAMES)


LOOPS: dict[str, dict[str, Any]] = {
    "the library's": {"output_hidden_states": True, "return_dict_in_generate": True},
    "beams": {"num_beams": 2},
    "chunks": {"prefill_chunk_size": 3},
}


def forget_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the library hands states over by a name that the model does not know."""
    forward = SMTModel.forward
    monkeypatch.setattr(
        SMTModel, "forward", lambda self, *args, cache=None, **rest: forward(self, *args, **rest)
    )


@pytest.mark.parametrize("options", LOOPS.values(), ids=LOOPS)
def test_a_state_that_forward_does_not_get_is_noticed(options, monkeypatch):
    forget_states(monkeypatch)
    with pytest.raises(RuntimeError) as error:
        generate(talking_model(), prompt(), max_new_tokens=6, do_sample=False, **options)
    assert is_one_sentence(error.value, "token(s)", transformers.__version__)


def test_a_given_state_that_forward_does_not_get_is_noticed_before_the_first_token(monkeypatch):
    model = talking_model()
    state = model(prompt()).cache
    forget_states(monkeypatch)
    with pytest.raises(RuntimeError, match=r"read 5 of 10 token\(s\)"):
        generate(model, prompt(), cache=state, attention_mask=torch.ones(1, 10), max_new_tokens=6)


@pytest.mark.parametrize("kind", [None, "static"])
def test_a_state_that_the_loop_drops_is_noticed_at_the_first_token_after_the_prompt(kind, monkeypatch):
    model = talking_model()
    update = SMTForCausalLM._update_model_kwargs_for_generation

    def forgetful(self, outputs, model_kwargs, **rest):
        kept = update(self, outputs, model_kwargs, **rest)
        kept[STATE_NAME] = transformers.DynamicCache(config=self.config)
        return kept

    monkeypatch.setattr(SMTForCausalLM, "_update_model_kwargs_for_generation", forgetful)
    with pytest.raises(RuntimeError, match=r"read 0 of 5 token\(s\)"):
        generate(model, prompt(), max_new_tokens=6, do_sample=False, num_beams=2, cache_implementation=kind)


def test_the_check_reads_the_count_of_a_static_state_once(monkeypatch):
    """A count that is a tensor makes the host wait for the device."""
    from smt_hf.models import generation_state

    asked: list[int] = []
    monkeypatch.setattr(generation_state, "check_carried", lambda state, tokens: asked.append(tokens))
    options: dict[str, Any] = dict(max_new_tokens=12, do_sample=False, num_beams=2)
    generate(talking_model(), prompt(), cache_implementation="static", **options)
    assert asked == [5, 5]  # after the prompt, and at the first token after it


def test_every_name_that_the_code_relies_on_is_there():
    assert missing_names() == []


@pytest.mark.parametrize("place", RELIED_ON)
def test_a_name_that_is_gone_is_told_in_one_sentence(place, monkeypatch):
    monkeypatch.setitem(RELIED_ON, place, (*RELIED_ON[place], "_gone"))
    with pytest.raises(ImportError) as error:
        check_library(missing_names())
    assert is_one_sentence(error.value, f"{place}._gone", transformers.__version__, "--code-only")
    monkeypatch.setitem(RELIED_ON, "gone.module", ("anything",))
    assert "gone.module" in missing_names()


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'scipy'", name="scipy"), ImportError()])
def test_what_keeps_the_library_from_importing_is_not_called_missing_of_it(error, monkeypatch):
    def broken(_: str) -> None:
        raise error

    monkeypatch.setattr(library_names, "import_module", broken)
    with pytest.raises(ImportError) as raised:
        missing_names()
    assert raised.value is error


def test_a_state_by_a_third_name_is_told(monkeypatch):
    monkeypatch.setattr(library_names, "STATE_NAME", "third")
    assert missing_names() == ["the state as third in generate"]


# argv: a folder with a checkpoint. Without smt_hf, on a library that lacks the one thing named.
ON_ANOTHER_LIBRARY = """
import sys
sys.modules["smt_hf"] = None
import transformers
{change}
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
"""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("del transformers.generation.utils.GenerationMixin._prefill", "GenerationMixin._prefill"),
        ("del transformers.cache_utils.STATIC_LAYER_TYPE_MAPPING", "cache_utils.STATIC_LAYER_TYPE_MAPPING"),
        (
            "transformers.cache_utils.CacheLayerMixin.__init_subclass__ = classmethod(lambda *args: None)",
            "registration of cache layers",
        ),
    ],
)
def test_the_code_in_a_checkpoint_says_in_one_sentence_what_another_library_lacks(change, named, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    program = ON_ANOTHER_LIBRARY.format(change=change)
    run = warm.run(program, tmp_path, env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")})
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ImportError: transformers ") and last.endswith("."), last
    assert named in last and "smt-hf push --code-only" in last


def test_the_layer_of_a_default_cache_is_ours():
    state: Any = transformers.DynamicCache(config=SMTConfig())
    assert type(state.layers[0]) is MemoryLayer
