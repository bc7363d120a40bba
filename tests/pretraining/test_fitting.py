"""What a preset says gives way to what was given, in one line that says so; what was given never does."""

import logging
from pathlib import Path
from typing import Any

import pytest

from smt_hf.pretraining.assembly import build
from smt_hf.pretraining.fitting import unused
from smt_hf.runs.arguments import ENCODER_TYPES
from smt_hf.runs.spec import RunSpec, load_preset, preset_names

FREE = {"max_steps": 1, "disable_tqdm": True, "checkpoint_every": 0, "preset": "tiny"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("".join(f"Line {i}: {i} and {i + 1} are {2 * i + 1}.\n" for i in range(400)))
    return path


def built(folder: Path, **values: Any):
    return build(RunSpec.of(**{**FREE, "output_dir": folder / "run", **values}))


# What was given: the values that gave way, with those of the preset.
CASES: dict[str, tuple[dict[str, Any], dict[str, tuple[Any, Any]]]] = {
    "a sequence shorter than the future": (
        {"sequence_length": 6},
        {"future_length": (3, 8), "rollout_length": (2, 16)},
    ),
    "a sequence of little more than the future": (
        {"sequence_length": 9},
        {"future_length": (4, 8), "rollout_length": (4, 16)},
    ),
    "a rollout beside a sequence": ({"sequence_length": 40, "rollout_length": 34}, {"future_length": (5, 8)}),
    "a rollout longer than the context": ({"rollout_length": 40}, {"context_length": (41, 32)}),
    "a rollout longer than a task": (
        {"dataset": "retrieval", "rollout_length": 40},
        {"context_length": (41, 32)},
    ),
    "a short task": ({"dataset": "retrieval", "sequence_length": 16}, {"rollout_length": (15, 16)}),
    "a task that needs more": ({"dataset": "recency:num_recalled=40"}, {"context_length": (128, 32)}),
    "a short context": ({"context_length": 8}, {"rollout_length": (7, 16)}),
    "labels further apart than the rollout": ({"dmt_label_every": 20}, {"rollout_length": (20, 16)}),
    "more gradient steps than the rollout": ({"dmt_gradient_steps": 20}, {"rollout_length": (20, 16)}),
    "gradient steps and labels beyond the rollout": (
        {"dmt_gradient_steps": 20, "dmt_label_every": 18},
        {"rollout_length": (20, 16)},
    ),
    "labels further apart than a task": (
        {"dataset": "copy", "dmt_label_every": 40},
        {"rollout_length": (40, 16), "context_length": (41, 32)},
    ),
    "a rollout shorter than the labels are apart": (
        {"preset": "paper", "rollout_length": 4, "hidden_size": 16, "context_length": 8},
        {"dmt_label_every": (4, 16)},
    ),
    "heads": ({"num_attention_heads": 3}, {"hidden_size": (30, 32)}),
    "a width": ({"hidden_size": 6}, {"num_attention_heads": (1, 2)}),
    "parts of a batch": ({"gradient_accumulation_steps": 3}, {"batch_size": (15, 16)}),
    "more parts than rows": ({"gradient_accumulation_steps": 40}, {"batch_size": (40, 16)}),
    "a phase": ({"bptt_fraction": 0.6}, {"dmt_fraction": (0.2, 0.5)}),
    "the phase before SMT": ({"trunk_fraction": 0.6}, {"dmt_fraction": (0.2, 0.5)}),
    "all of the budget": ({"bptt_fraction": 1.0}, {"dmt_fraction": (0.0, 0.5)}),
    "layers": ({"num_hidden_layers": 3}, {"num_memory_tokens": (3, 2)}),
    "layers of two states": ({"cell": "lstm", "num_hidden_layers": 3}, {"num_memory_tokens": (6, 2)}),
}


@pytest.mark.parametrize("case", CASES)
def test_values_of_the_preset_give_way_and_the_run_says_which(tmp_path, corpus, caplog, case):
    given, gave_way = CASES[case]
    with caplog.at_level(logging.WARNING, "smt_hf"):
        trainer = built(tmp_path, **{"dataset": corpus, **given})
    spec = trainer.args
    assert {
        name: (getattr(spec, name), old) for name, old in spec.gave_way.items() if name != "eval_horizon"
    } == gave_way
    assert {name: getattr(spec, name) for name in given if name != "dataset"} == {
        name: value for name, value in given.items() if name != "dataset"
    }
    (line,) = (
        record.getMessage() for record in caplog.records if "to fit what was given" in record.getMessage()
    )
    assert all(f"{name} {new} (not {old})" in line for name, (new, old) in gave_way.items())
    assert trainer.record.spec == spec.to_dict() and not (tmp_path / "run").exists()


NO_USE: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {
    "BPTT has no labels and no rollouts": (
        {"method": "bptt", "num_labels": 4, "num_sweeps": 2, "rollout_length": 4, "bptt_learning_rate": 1e-3},
        {"method is bptt": ["bptt_learning_rate", "num_labels", "num_sweeps", "rollout_length"]},
    ),
    "nor a context, if its rows have a length": (
        {"method": "bptt", "sequence_length": 24, "context_length": 16, "future_length": 8},
        {"method is bptt": ["context_length", "future_length"]},
    ),
    "rows without a length are a context and a future": (
        {"method": "bptt", "context_length": 16, "future_length": 8},
        {},
    ),
    "a task is predicted to its end": (
        {"method": "bptt", "dataset": "parity", "future_length": 8, "eval_horizon": 16},
        {"method is bptt": ["future_length"], "parity is no text": ["eval_horizon"]},
    ),
    "images are read whole": (
        {"method": "bptt", "dataset": "digits", "context_length": 16, "future_length": 8},
        {"method is bptt": ["context_length", "future_length"]},
    ),
    "nothing but BPTT at the end": (
        {"bptt_fraction": 1.0, "learning_rate": 1e-3, "num_labels": 3, "cold_start_fraction": 0.5},
        {"bptt_fraction is 1": ["learning_rate", "num_labels"], "dmt_fraction is 0": ["cold_start_fraction"]},
    ),
    "a trunk that there is not": (
        {"encoder_type": "bidirectional", "trunk_weight": 2.0},
        {"encoder_type is bidirectional": ["trunk_weight"]},
    ),
    "a curriculum longer than the rows": (
        {"curriculum_start_length": 40, "curriculum_fraction": 0.5},
        {"rows have 40 tokens": ["curriculum_fraction", "curriculum_start_length"]},
    ),
    "a curriculum of no time": (
        {"curriculum_start_length": 16, "curriculum_fraction": 0},
        {"curriculum_fraction is 0": ["curriculum_start_length"]},
    ),
    "no DMT": (
        {"dmt_fraction": 0, "cold_start_fraction": 0.5, "dmt_learning_rate": 1e-3, "num_labels": 3},
        {"dmt_fraction is 0": ["cold_start_fraction", "dmt_learning_rate"]},
    ),
    "no BPTT": ({"bptt_learning_rate": 1e-3}, {"bptt_fraction is 0": ["bptt_learning_rate"]}),
    "BPTT at the end": ({"bptt_fraction": 0.1, "bptt_learning_rate": 1e-3, "rollout_length": 4}, {}),
    "nobody to heed": (
        {"teacher_weight": 0.3, "teacher_embeddings": True},
        {"there is no teacher": ["teacher_embeddings", "teacher_weight"]},
    ),
    "no curriculum": (
        {"curriculum_fraction": 0.5},
        {"there is no curriculum_start_length": ["curriculum_fraction"]},
    ),
    "a curriculum": ({"curriculum_start_length": 16, "curriculum_fraction": 0.5}, {}),
    "nothing to keep": (
        {"checkpoint_every": 0, "save_total_limit": 3},
        {"checkpoint_every is 0": ["save_total_limit"]},
    ),
    "nothing to push": ({"hub_private_repo": True}, {"push_to_hub is off": ["hub_private_repo"]}),
}


@pytest.mark.parametrize("case", NO_USE)
def test_a_run_says_what_of_the_given_it_has_no_use_for(tmp_path, corpus, caplog, case):
    given, no_use = NO_USE[case]
    with caplog.at_level(logging.WARNING, "smt_hf"):
        spec = built(tmp_path, **{"dataset": corpus, **given}).args
    assert unused(spec, 40) == no_use
    lines = [record.getMessage() for record in caplog.records if "no use" in record.getMessage()]
    assert len(lines) == bool(no_use)
    for reason, names in no_use.items():
        assert f"{', '.join(names)} ({reason})" in lines[0]


def test_more_validation_sequences_than_there_are_are_told(tmp_path, corpus, caplog):
    with caplog.at_level(logging.WARNING, "smt_hf"):
        built(tmp_path, dataset=corpus, eval_sequences=2)
        assert not caplog.records
        trainer = built(tmp_path, dataset=corpus, eval_sequences=5000)
    there = len(trainer.eval_dataset.evaluation_rows(5000, trainer.args.eval_horizon)[0])
    assert [one.getMessage() for one in caplog.records] == [
        f"eval_sequences is 5000, and the data have {there}."
    ]


def test_evaluations_of_a_short_text_read_what_there_is(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("ab c" * 250)  # 5 % of it hold no block of 64 tokens
    trainer = built(tmp_path, dataset=path)
    text = trainer.eval_dataset
    assert trainer.args.gave_way == {"eval_horizon": 64}
    assert (
        trainer.args.eval_horizon
        == text.num_tokens - 1
        == text.evaluation_rows(1, text.num_tokens - 1)[0].shape[1]
    )
    with pytest.raises(ValueError, match="window of sequence_length 64"):
        built(tmp_path, dataset=path, eval_horizon=64)


def test_processes_that_were_started_share_the_preset_s_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    values = {**FREE, "output_dir": "x"}
    assert RunSpec.of(**values).batch_size == 15
    assert RunSpec.of(**values, gradient_accumulation_steps=2).batch_size == 18
    assert RunSpec.of(**values, batch_size=16).batch_size == 16  # to be refused


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_a_preset_s_trunk_phase_gives_way_to_an_encoder_without_a_trunk(encoder_type):
    values = {"preset": "text", "encoder_type": encoder_type, "output_dir": "x", "max_steps": 1}
    spec = RunSpec.of(**values)
    learns = encoder_type in ("causal", "projected")
    assert spec.trunk_fraction == (0.2 if learns else 0) and ("trunk_fraction" in spec.gave_way) != learns
    assert RunSpec.of(**values, trunk_fraction=0.3).trunk_fraction == 0.3  # to be refused


def test_every_n_th_step_that_was_given_ends_the_preset_s_stretches_of_steps():
    values = {"preset": "text", "output_dir": "x", "max_steps": 1}
    spec = RunSpec.of(**values, dmt_label_every=4)
    assert (spec.dmt_gradient_steps, spec.gave_way) == (1, {"dmt_gradient_steps": 8})
    assert RunSpec.of(**values, dmt_label_every=16).dmt_gradient_steps == 8
    assert RunSpec.of(**values, dmt_label_every=4, dmt_gradient_steps=8).dmt_gradient_steps == 8


def test_shares_whose_sum_is_one_but_for_rounding_are_fitted():
    values = {"preset": "text", "output_dir": "x", "max_steps": 1}
    assert RunSpec.of(**values, dmt_fraction=0.7, bptt_fraction=0.1).trunk_fraction < 0.2


def test_a_home_of_nobody_is_a_name_like_any_other():
    assert RunSpec.of(output_dir="~nobody-here/x", max_steps=1).output_dir == "~nobody-here/x"


def test_parts_of_a_file_give_way_to_a_batch():
    """Values of a record that were not given, as those of a preset."""
    from smt_hf.runs.spec import make_spec

    rest = {**load_preset("tiny", "gru")[1], "gradient_accumulation_steps": 4}
    spec = make_spec({"output_dir": "x", "max_steps": 1, "batch_size": 6}, rest)
    assert (spec.gradient_accumulation_steps, spec.gave_way) == (3, {"gradient_accumulation_steps": 4})


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_fits_itself(preset, tmp_path, caplog):
    sizes = {"hidden_size": 64, "num_encoder_layers": 1, "num_readout_layers": 1} if preset == "paper" else {}
    with caplog.at_level(logging.WARNING, "smt_hf"):
        spec = built(tmp_path, preset=preset, dataset="retrieval", **sizes).args
    assert spec.gave_way == {} and caplog.records == []


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a future as long as the sequence": (
        {"sequence_length": 9, "future_length": 8},
        "sequence_length 9 leaves no context",
    ),
    "a task and a tokenizer": (
        {"dataset": "retrieval", "tokenizer": "byte"},
        "is no text; leave tokenizer out",
    ),
    "a text and a prompt": ({"prompt_fraction": 0.5}, "has no prompts, as tasks have; make it 0"),
    "a student of nobody": ({"dmt_fraction": 1.0}, "SMT has no time"),
    "a trunk that nobody asks": (
        {"trunk_fraction": 0.5, "dmt_fraction": 0.0, "bptt_fraction": 0.5},
        "SMT has no time",
    ),
    "a trunk that there is not": (
        {"trunk_fraction": 0.2, "encoder_type": "bidirectional"},
        "trunk_fraction is 0.2, and a bidirectional encoder has no trunk that learns",
    ),
    "a student of nobody, then of the text": ({"dmt_fraction": 0.5, "bptt_fraction": 0.5}, "SMT has no time"),
    "a context and a row": (
        {"sequence_length": 32, "context_length": 48},
        "context_length 48 does not fit into rows of 32 tokens; use at most 32",
    ),
    "a future and an image": ({"dataset": "digits", "future_length": 80}, "rows of 64 tokens; use at most 64"),
    "more labels than tokens": ({"num_labels": 34, "context_length": 32}, "num_labels 34 .* use at most 33"),
    "a rollout and a context": (
        {"rollout_length": 32, "context_length": 32},
        "rollout_length 32 does not fit .* at most 31",
    ),
    "a rollout and a task": (
        {"dataset": "retrieval", "rollout_length": 16, "sequence_length": 16},
        "at most 15",
    ),
    "heads and a width": (
        {"num_attention_heads": 3, "hidden_size": 32},
        "hidden_size 32 does not divide into 3",
    ),
    "parts and a batch": (
        {"gradient_accumulation_steps": 3, "batch_size": 16},
        "batch_size 16 does not divide into 3",
    ),
    "phases": ({"dmt_fraction": 0.6, "bptt_fraction": 0.6}, "more than the whole budget"),
    "labels and a rollout": ({"dmt_label_every": 9, "rollout_length": 8}, "dmt_label_every is 9"),
    "gradient steps and a context": (
        {"dmt_gradient_steps": 32, "context_length": 32},
        "dmt_gradient_steps 32 does not fit into a context of 32 tokens; use at most 31",
    ),
    "layers and tokens": (
        {"num_hidden_layers": 3, "num_memory_tokens": 4},
        "num_memory_tokens 4 cannot be shared",
    ),
    "a context and a task": (
        {"dataset": "retrieval", "sequence_length": 16, "context_length": 20},
        "context_length is 20, but 'retrieval' is read whole, 16 tokens",
    ),
    "labels and a context": (
        {"dmt_label_every": 40, "sequence_length": 20},
        "dmt_label_every 40 does not fit into a context of 19 tokens; use at most 18",
    ),
    "a context of one token": (
        {"context_length": 1},
        "context_length is 1, which leaves no room for a rollout",
    ),
    "a sequence of two tokens": (
        {"sequence_length": 2},
        r"sequence_length 2 leaves no context of 2 tokens before a future of 1; make it longer\.$",
    ),
    "a context that the task's sizes forbid": (
        {"dataset": "retrieval", "context_length": 3},
        "context_length 3 is the length of the task's rows: retrieval needs sequence_length of at least 4",
    ),
    "a curriculum that they forbid": (
        {"dataset": "retrieval", "curriculum_start_length": 2},
        "curriculum_start_length is 2: retrieval needs",
    ),
    "an odd width": ({"hidden_size": 33}, "hidden_size 33 does not divide .* multiple of 2"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_given_values_that_contradict_one_another_are_refused(tmp_path, corpus, case):
    given, said = CONTRADICTIONS[case]
    with pytest.raises(ValueError, match=said):
        built(tmp_path, **{"dataset": corpus, **given})
    assert not (tmp_path / "run").exists()


def test_a_record_of_a_run_whose_preset_gave_way_repeats_it_and_says_nothing(tmp_path, corpus, caplog):
    from smt_hf.runs.record import read_config
    from smt_hf.runs.spec import make_spec

    trainer = built(tmp_path, dataset=corpus, sequence_length=9)
    trainer.record.write(tmp_path)
    caplog.clear()
    again = build(make_spec(*read_config(tmp_path / "run.json")))
    assert again.args == trainer.args and again.record.teacher == trainer.record.teacher
    assert [r for r in caplog.records if "to fit" in r.getMessage()] == []
