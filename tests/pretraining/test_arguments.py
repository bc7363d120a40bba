# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""Arguments that contradict one another or are out of range are named before any work is done."""

import pytest
from tiny_training import Stream, tiny_arguments, tiny_student, tiny_teacher, tiny_trainer

from smt_hf.pretraining.trainer import SMTPretrainer
from smt_hf.runs.arguments import SMTPretrainingArguments


@pytest.mark.parametrize("budget", [{}, {"max_steps": 5, "max_minutes": 1.0}])
def test_exactly_one_budget_must_be_given(budget):
    with pytest.raises(ValueError, match=r"max_steps is \w+ and max_minutes is [\w.]+; give exactly one"):
        SMTPretrainingArguments("run", **budget)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "rl"}, "method is 'rl'"),
        ({"mixed_precision": "fp8"}, "mixed_precision is 'fp8'"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_minutes": -1.0}, "max_minutes is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"rollout_length": 0}, "rollout_length is 0"),
        ({"num_sweeps": -1}, "num_sweeps is -1"),
        ({"num_labels": 1}, "num_labels is 1"),
        ({"dmt_label_every": 0}, "dmt_label_every is 0"),
        (
            {"dmt_label_every": 9, "rollout_length": 8},
            "it must be at most rollout_length 8",
        ),
        ({"dmt_gradient_steps": 0}, "dmt_gradient_steps is 0"),
        (
            {"dmt_gradient_steps": 9, "rollout_length": 8},
            "dmt_gradient_steps is 9; it must be at most rollout_length 8",
        ),
        ({"save_total_limit": 0}, "save_total_limit is 0"),
        ({"checkpoint_every": -5}, "checkpoint_every is -5"),
        ({"dmt_fraction": 1.5}, "dmt_fraction is 1.5"),
        ({"cold_start_fraction": -0.1}, "cold_start_fraction is -0.1"),
        ({"bptt_fraction": 1.5}, "bptt_fraction is 1.5"),
        ({"bptt_learning_rate": 0.0}, "bptt_learning_rate is 0.0"),
        (
            {"dmt_fraction": 0.6, "bptt_fraction": 0.5},
            "dmt_fraction 0.6 and bptt_fraction 0.5 are more than the whole budget",
        ),
        ({"trunk_weight": -1.0}, "trunk_weight is -1.0"),
        ({"cell_readout_weight": -1.0}, "cell_readout_weight is -1.0"),
        ({"prompt_fraction": 1.5}, "prompt_fraction is 1.5"),
        ({"curriculum_start_length": 0}, "curriculum_start_length is 0"),
        ({"batch_size": 6, "gradient_accumulation_steps": 4}, "batch_size 6 does not divide into 4"),
        ({"push_to_hub": True}, "hub_model_id"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, changes, named):
    with pytest.raises(ValueError) as error:
        tiny_arguments(tmp_path, **changes)
    assert named in str(error.value) and "\n" not in str(error.value)


def test_data_outside_the_vocabulary_is_named(tmp_path):
    class Wide(Stream):
        vocab_size = 40

    with pytest.raises(ValueError, match=r"token ids up to 39 but the model's vocab_size is 11; .*at least 40"):
        tiny_trainer(tmp_path, Wide())


def test_a_dataset_that_does_not_tell_its_vocabulary_is_looked_at(tmp_path):
    class Silent(Stream):
        vocab_size = None  # type: ignore[assignment]

        def tokens(self, index):
            return super().tokens(index) + 5

    with pytest.raises(ValueError, match=r"token ids up to 1\d but the model's vocab_size is 11"):
        tiny_trainer(tmp_path, Silent())


@pytest.mark.parametrize(
    "name", ["num_memory_tokens", "hidden_size", "num_readout_layers", "intermediate_size"]
)
def test_teacher_and_model_must_agree(tmp_path, name):
    teacher = tiny_teacher(**{name: 4 if name != "hidden_size" else 32})
    with pytest.raises(ValueError, match=rf"{name} is \d+ in the model but \d+ in the teacher"):
        SMTPretrainer(tiny_student(), teacher, tiny_arguments(tmp_path), Stream())


def test_smt_refuses_a_tied_model_whose_embeddings_the_teachers_head_would_replace(tmp_path):
    tied = tiny_student(tie_word_embeddings=True)
    with pytest.raises(ValueError, match="tie_word_embeddings is True"):
        SMTPretrainer(tied, tiny_teacher(), tiny_arguments(tmp_path), Stream())
    SMTPretrainer(tied, None, tiny_arguments(tmp_path, method="bptt"), Stream())


def test_smt_needs_a_teacher_and_bptt_does_not(tmp_path):
    with pytest.raises(ValueError, match="'smt' needs a teacher"):
        SMTPretrainer(tiny_student(), None, tiny_arguments(tmp_path), Stream())
    SMTPretrainer(tiny_student(), None, tiny_arguments(tmp_path, method="bptt"), Stream())


def test_a_rollout_must_fit_into_the_context(tmp_path):
    with pytest.raises(ValueError, match=r"rollout_length 12 .*context of 12 tokens; use at most 11"):
        tiny_trainer(tmp_path, rollout_length=12)
    tiny_trainer(tmp_path, rollout_length=11)
    tiny_trainer(tmp_path, rollout_length=12, dmt_fraction=0.0)


def test_a_curriculum_needs_a_dataset_of_any_length(tmp_path):
    rows = [Stream()[i] for i in range(4)]
    with pytest.raises(ValueError, match="curriculum_start_length"):
        tiny_trainer(tmp_path, rows, curriculum_start_length=4)
    tiny_trainer(tmp_path, rows)


def test_refusing_writes_nothing(tmp_path):
    with pytest.raises(ValueError):
        tiny_trainer(tmp_path / "run", rollout_length=12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wand", "'wand'; it must be none, or some of aim, .*wandb"),
        ("wandb", "'wandb', which is not installed"),
    ],
)
def test_a_tracker_that_cannot_log_is_refused(tmp_path, monkeypatch, name, said):
    monkeypatch.setattr("smt_hf.pretraining.checks.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match=said):
        tiny_trainer(tmp_path / "run", report_to=name)
    assert list(tmp_path.iterdir()) == []
