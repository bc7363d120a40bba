"""RunSpec: flags, files, presets, records and Python are one description, with errors of one sentence."""

import dataclasses
import json
from pathlib import Path

import pytest

from smt_hf.cli import build_parser, main, with_dashes
from smt_hf.cli.pretrain import spec_of
from smt_hf.runs.arguments import SMTPretrainingArguments
from smt_hf.runs.record import read_config
from smt_hf.runs.spec import FIELDS, RunSpec, flag, load_preset, make_spec, merge, preset_names

GIVEN = {
    "dataset": "retrieval", "max_minutes": 1.5, "output_dir": "runs/x", "cell": "transformer", "seed": 3,
    "learning_rate": 0.25, "detach_labels": True, "future_length": 5, "hub_model_id": "me/x",
}  # fmt: skip


def from_flags(*words: str) -> RunSpec:
    args = build_parser().parse_args(["pretrain", *map(with_dashes, words)])
    return spec_of(args)


def as_words(values: dict) -> list[str]:
    return [w for name, v in values.items() for w in ([flag(name)] if v is True else [flag(name), str(v)])]


def test_flags_a_yaml_file_and_python_describe_the_same_run(tmp_path):
    import yaml

    (tmp_path / "run.yaml").write_text(yaml.safe_dump({name.replace("_", "-"): v for name, v in GIVEN.items()}))
    python = RunSpec.of(**GIVEN)
    assert from_flags(*as_words(GIVEN)) == python == from_flags("--config", str(tmp_path / "run.yaml"))
    assert python.given == GIVEN.keys()
    assert from_flags(*python.command()[2:]) == python  # a run says how to make it again


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "preset: tiny\nbatch_size: 7\nmax-steps: 5\noutput_dir: a\nlearning_rate: 1e-2\n"
    )
    spec = from_flags("--config", str(tmp_path / "run.yaml"), "--batch_size", "9", "--output-dir", "b")
    assert (spec.preset, spec.batch_size, spec.output_dir, spec.max_steps) == ("tiny", 9, "b", 5)
    assert spec.learning_rate == 0.01  # which YAML takes for text
    assert spec.hidden_size == load_preset("tiny", "gru")[1]["hidden_size"] == 32


def test_a_budget_in_one_unit_replaces_that_in_the_other():
    assert merge({"max_steps": 5}, {"max_minutes": 1}) == {"max_minutes": 1.0}
    assert merge({"max_minutes": 1}, {"max_steps": "5"}) == {"max_steps": 5}
    with pytest.raises(ValueError, match="give exactly one"):
        make_spec({"max_minutes": 1, "max_steps": 5, "output_dir": "x"})


def test_every_setting_has_a_help_a_group_and_a_type_that_can_be_read():
    for name, field in FIELDS.items():
        assert field.metadata["help"] and field.metadata["group"], name
    assert {f.name for f in dataclasses.fields(SMTPretrainingArguments)} < FIELDS.keys()


@pytest.mark.parametrize("cell", ["gru", "transformer", "mlp", "lstm", "elman"])
@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_is_a_run_for_every_cell(preset, cell):
    spec = RunSpec.of(preset=preset, cell=cell, max_steps=1, output_dir="x")
    assert spec.given == {"preset", "cell", "max_steps", "output_dir"}


WRONG = {
    "no YAML": ("a: [", "is no YAML"),
    "a list": ("- 1\n", "holds no settings"),
    "empty": ("", "holds no settings"),
    "a key twice": ("seed: 1\nseed: 2\n", "has 'seed' twice"),
    "a key in two spellings": ("max_steps: 1\nmax-steps: 2\n", "max_steps is there twice"),
    "an unknown key": (
        "lerning_rate: 1\n",
        "'lerning_rate' is no setting of a run; did you mean learning_rate",
    ),
    "a word for a number": ("batch_size: many\n", "batch_size is 'many'; it must be a whole number"),
    "a number for a word": ("dataset: 3\n", "dataset is 3; it must be text"),
    "a fraction for a whole number": ("batch_size: 2.5\n", "batch_size is 2.5; it must be a whole number"),
    "true for a number": ("batch_size: true\n", "batch_size is True; it must be a whole number"),
    "a list for a number": ("batch_size: [1]\n", "batch_size is [1]; it must be a whole number"),
    "nothing for a number": ("batch_size:\n", "batch_size is None; it must be a whole number"),
    "no number": ("learning_rate: .nan\nmax_steps: 1\n", "learning_rate is nan; it must be a finite number"),
    "out of range": ("dmt_fraction: 2\nmax_steps: 1\n", "dmt_fraction is 2.0; it must lie between 0 and 1"),
    "an unknown preset": ("preset: huge\nmax_steps: 1\n", "unknown preset 'huge'; choose one of base, paper"),
    "a preset elsewhere": ("preset: ../presets/tiny\nmax_steps: 1\n", "unknown preset '../presets/tiny'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_config_file_is_one_sentence_and_nothing_is_written(case, tmp_path, capsys):
    text, said = WRONG[case]
    (tmp_path / "run.yaml").write_text(text)
    words = ["pretrain", "--config", str(tmp_path / "run.yaml"), "--output-dir", str(tmp_path / "run")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("smt-hf pretrain: error: ") and said in line and line.endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bad", b"\x89PNG\r\n"])
def test_a_config_that_is_no_text_or_not_there_is_one_sentence(content, tmp_path, capsys):
    (tmp_path / "run.yaml").write_bytes(content)
    for name in ("run.yaml", "missing.yaml"):
        assert main(["pretrain", "--config", str(tmp_path / name), "--output-dir", str(tmp_path / "run")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert name in line


def test_the_settings_of_a_record_repeat_its_run_whatever_the_preset_has_become(tmp_path, monkeypatch):
    from handmade_record import a_record

    spec = RunSpec.of(preset="tiny", dataset="retrieval", max_steps=4, output_dir="runs/x")
    a_record(spec=spec.to_dict(), given=sorted(spec.given)).write(tmp_path)
    monkeypatch.setattr("smt_hf.runs.spec.load_preset", lambda name, cell: ("", {"hidden_size": 99}))
    again = make_spec(*read_config(tmp_path / "run.json"))
    assert again == spec and again.given == spec.given and again.hidden_size == 32


def test_a_record_of_a_run_that_python_gave_its_data_cannot_be_repeated_from_its_file(tmp_path):
    from handmade_record import a_record

    record = a_record()
    del record.spec["dataset"]
    record.write(tmp_path)
    with pytest.raises(ValueError, match=r"given its data set in Python; start it there again\.$"):
        read_config(tmp_path / "run.json")


def test_only_a_file_named_run_json_is_read_as_a_record(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"seed": 3}))  # JSON is YAML
    assert read_config(tmp_path / "other.json") == ({"seed": 3}, None)
    assert not Path("run.json").exists()


@pytest.mark.parametrize("name", ["dataset", "tokenizer", "teacher", "output_dir"])
def test_a_path_of_the_home_folder_is_whole_in_the_record(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    spec = RunSpec.of(**{"output_dir": "run", "max_steps": 1, name: "~/here"})
    assert getattr(spec, name) == str(tmp_path / "here")
