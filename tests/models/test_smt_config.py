"""The configuration survives the disk, and refuses what cannot be built in one clear sentence."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, LeakyCell, is_one_sentence, tiny_config
from transformers import AutoConfig

from smt_hf import CELLS, SMTConfig, SMTForCausalLM, SMTModel, register_cell

NON_DEFAULT: dict[str, Any] = dict(
    vocab_size=11,
    hidden_size=24,
    num_memory_tokens=6,
    cell="lstm",
    num_hidden_layers=3,
    num_readout_layers=1,
    num_attention_heads=3,
    intermediate_size=40,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    rms_norm_eps=1e-5,
    initializer_range=0.5,
    bptt_truncation=7,
    use_cache=False,
    tie_word_embeddings=True,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=[2, 3],
)


def test_every_field_survives_saving_and_loading(tmp_path):
    SMTConfig(**NON_DEFAULT).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "configuration_smt.py", "library_names.py"} <= names
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "smt"
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is SMTConfig
    for name, value in NON_DEFAULT.items():
        assert getattr(loaded, name) == value, name
    assert loaded.to_diff_dict() == SMTConfig(**NON_DEFAULT).to_diff_dict()


def test_the_round_trip_above_tries_every_field():
    own = {name for name in SMTConfig.__annotations__ if name not in ("model_type", "config_version")}
    assert own == set(NON_DEFAULT)
    default = SMTConfig()
    assert all(getattr(default, name) != value for name, value in NON_DEFAULT.items())


def test_the_feed_forward_width_is_four_times_the_hidden_size_unless_given():
    assert SMTConfig(hidden_size=24, num_attention_heads=3).intermediate_size == 96
    assert SMTConfig(intermediate_size=7).intermediate_size == 7


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("hidden_size", 18, ("hidden_size 18", "2 attention heads", "multiple of 4")),
        ("num_attention_heads", 3, ("hidden_size 16", "3 attention heads", "multiple of 6")),
        ("bptt_truncation", 0, ("bptt_truncation is 0", "at least 1")),
        ("bptt_truncation", -2, ("bptt_truncation is -2",)),
        ("vocab_size", 0, ("vocab_size is 0",)),
        ("hidden_size", 0, ("hidden_size is 0",)),
        ("num_memory_tokens", 0, ("num_memory_tokens is 0",)),
        ("num_hidden_layers", -1, ("num_hidden_layers is -1",)),
        ("num_readout_layers", 0, ("num_readout_layers is 0",)),
        ("num_attention_heads", 0, ("num_attention_heads is 0",)),
        ("intermediate_size", 0, ("intermediate_size is 0",)),
        ("intermediate_size", -8, ("intermediate_size is -8",)),
        ("config_version", -3, ("config_version is -3", "at least 1")),
        *(
            (name, value, (f"{name} is {value!r}", "finite number greater than 0"))
            for name in ("rms_norm_eps", "initializer_range", "rope_theta")
            for value in (0.0, -10.0, float("nan"), float("inf"))
        ),
        ("rope_theta", "x", ("rope_theta is 'x'",)),
        ("rope_parameters", {"rope_theta": "x"}, ("rope_theta is 'x'",)),
    ],
)
def test_sizes_that_cannot_be_built_are_a_value_error_in_one_sentence(field, value, named):
    with pytest.raises(ValueError) as error:
        tiny_config(**{field: value})
    assert is_one_sentence(error.value, *named)


@pytest.mark.parametrize(
    ("cell", "memory_tokens", "layers", "multiple"),
    [
        ("gru", 3, 2, 2),
        ("elman", 4, 3, 3),
        ("lstm", 3, 1, 2),
        ("lstm", 2, 2, 4),
    ],
)
def test_memory_tokens_that_cannot_be_shared_out_are_an_error(cell, memory_tokens, layers, multiple):
    config = tiny_config(cell, num_memory_tokens=memory_tokens, num_hidden_layers=layers)
    with pytest.raises(ValueError) as error:
        SMTForCausalLM(config)
    assert is_one_sentence(
        error.value, f"num_memory_tokens {memory_tokens}", f"{layers} layer(s)", f"multiple of {multiple}"
    )
    assert repr(cell) in str(error.value)


@pytest.mark.parametrize("cell", ["perceptron", "somebody.module:Cell", ""])
def test_an_unknown_cell_is_an_error_that_lists_the_known_ones(cell):
    with pytest.raises(ValueError) as error:
        SMTForCausalLM(tiny_config(cell))
    assert is_one_sentence(error.value, repr(cell), *BUILT_IN_CELLS)
    assert "register_cell" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *("num_layers", "n_embd", "is_decoder", "add_cross_attention", "attention_dropout", "hidden_act"),
        *("max_length", "per_layer_config", "max_position_embeddings", "partial_rotary_factor", "rope_scaling"),
    ],
)
def test_a_field_that_nothing_reads_is_refused_by_its_name(name):
    field: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError) as error:
        tiny_config(**field)
    assert is_one_sentence(error.value, repr(name), "num_hidden_layers", "bptt_truncation")
    with pytest.raises(TypeError, match=name):
        AutoConfig.for_model("smt", **{name: 1})


def test_a_cell_of_ones_own_may_have_fields_of_its_own(tmp_path):
    field: dict[str, Any] = {"leak": 0.3}
    tiny_config("leaky", **field).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).leak == 0.3
    assert AutoConfig.from_pretrained(tmp_path, leak=0.5).leak == 0.5


def test_what_other_tools_wrote_into_a_config_file_is_kept_and_loads(tmp_path):
    """Also in a file of an older `transformers`, which wrote settings of `generate` there."""
    tiny_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tool_version": 3, "max_length": 20}))
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.tool_version == 3 and not hasattr(loaded, "max_length")
    SMTForCausalLM(loaded).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tool_version"] == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("chunk_size_feed_forward", 4), ("is_encoder_decoder", True), ("output_attentions", True)],
)
def test_a_field_of_all_models_that_asks_for_what_this_one_does_not_do_is_refused(name, value, tmp_path):
    for build in (SMTForCausalLM, SMTModel):
        with pytest.raises(ValueError) as error:
            build(tiny_config(**{name: value}))
        assert is_one_sentence(error.value, f"{name}={value}")
    SMTForCausalLM(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=name):
        SMTForCausalLM.from_pretrained(tmp_path, **{name: value})


def test_attention_that_is_asked_for_later_is_refused_too():
    model: Any = SMTForCausalLM(tiny_config())
    model.config.output_attentions = True
    for each in (model, model.model):
        with pytest.raises(ValueError, match="output_attentions=True"):
            each(torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
        {"rope_theta": 100.0, "partial_rotary_factor": 0.5},
        {"rope_type": "default", "rope_theta": 100.0, "factor": 2.0},
    ],
)
def test_rotary_embeddings_of_another_kind_are_refused(parameters):
    with pytest.raises(ValueError) as error:
        tiny_config(rope_parameters=parameters)
    assert is_one_sentence(error.value, parameters, "rope_theta")


def test_the_rotary_base_may_be_given_by_its_older_name():
    expected = tiny_config(rope_parameters={"rope_type": "default", "rope_theta": 500.0}).rope_parameters
    assert tiny_config(rope_theta=500.0).rope_parameters == expected
    assert tiny_config(rope_parameters={"rope_theta": 500.0}).rope_parameters == expected
    with pytest.raises(ValueError, match="rope_theta is 7"):
        tiny_config(rope_theta=7.0, rope_parameters={"rope_theta": 500.0})


@pytest.fixture
def cells(monkeypatch) -> Iterator[dict]:
    """The dictionary of cells, put back after the test."""
    for name in list(CELLS):
        monkeypatch.setitem(CELLS, name, CELLS[name])
    yield CELLS
    for name in set(CELLS) - set(BUILT_IN_CELLS):
        del CELLS[name]


def test_a_registered_cell_is_built_by_its_name_and_may_be_registered_again(cells):
    register_cell("leaky", LeakyCell)
    register_cell("leaky", LeakyCell)
    assert type(SMTForCausalLM(tiny_config("leaky")).model.cell) is LeakyCell


def test_a_taken_name_is_an_error_and_the_old_cell_stays(cells):
    old = cells["gru"]
    with pytest.raises(ValueError) as error:
        register_cell("gru", LeakyCell)
    assert is_one_sentence(error.value, "'gru'", "GRUCell")
    assert cells["gru"] is old


@pytest.mark.parametrize("thing", [SMTConfig, int, "LeakyCell", None, lambda config: None])
def test_what_is_no_memory_cell_is_an_error(thing, cells):
    with pytest.raises(ValueError) as error:
        register_cell("odd", thing)
    assert is_one_sentence(error.value, "'odd'", "MemoryCell")
    assert "odd" not in cells
