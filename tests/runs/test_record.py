"""run.json: what is written is read back, older ones are understood, newer ones refused."""

import dataclasses
import json

import pytest
from handmade_record import a_record

from smt_hf.runs.record import FORMAT, RunRecord, read_config
from smt_hf.runs.spec import make_spec

# As smt-hf 0.1.0 wrote it, of a run of the preset "small" on retrieval.
VERSION_1 = {
    "status": "finished",
    "method": "smt",
    "phases": [{"name": "smt", "start": 0.0, "end": 0.5, "learning_rate": 0.002}],
    "arguments": {
        "output_dir": "runs/old", "method": "smt", "max_steps": None, "max_minutes": 2.0, "dmt_fraction": 0.5,
        "batch_size": 32, "learning_rate": 0.002, "rollout_length": 32, "seed": 1, "hub_model_id": None,
        "a_setting_that_is_gone": 3,
    },
    "output_dir": "runs/old",
    "seed": 1,
    "cell": "gru",
    "model": {"hidden_size": 64, "num_memory_tokens": 4, "num_hidden_layers": 1, "num_readout_layers": 1},
    "teacher": {"num_hidden_layers": 2, "context_length": 64, "future_length": 64, "encoder_type": "causal"},
    "parameters": 1,
    "state_bytes": 1024,
    "dataset": "retrieval",
    "data_kind": "task",
    "data_fingerprint": "f",
    "sequence_length": 64,
    "bytes_per_token": None,
    "versions": {"torch": "2.13.0"},
    "git_commit": None,
    "machine": "2 CPU cores",
    "command": ["smt-hf", "pretrain"],
    "preset": "small",
    "data": {"dataset": "retrieval"},
    "steps": 10,
    "seconds": 1.0,
    "tokens": 5,
    "sequential_steps": 5,
    "final": {"accuracy": 1.0},
}  # fmt: skip


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = a_record(final={"loss": 1.5}, samples=[{"prompt": "é", "continuation": "\n"}])
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["format"] == FORMAT == 2 and content["spec"] == record.spec
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_of_the_first_version_is_understood(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(VERSION_1))
    record = RunRecord.of_finished(tmp_path)
    assert record.spec["learning_rate"] == 0.002 and record.spec["hidden_size"] == 64
    assert record.spec["num_encoder_layers"] == 2 and record.data == {"dataset": "retrieval"}
    assert record.hub_name == "old"
    spec = make_spec(*read_config(tmp_path / "run.json"))
    assert (spec.max_minutes, spec.batch_size, spec.seed, spec.cell) == (2.0, 32, 1, "gru")
    assert (spec.context_length, spec.num_hidden_layers, spec.sequence_length) == (64, 1, 64)


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ({"dataset": "python-docs", "streaming": True}, {"dataset": "python-docs"}),
        ({"dataset": __file__, "streaming": True}, {"dataset": __file__}),
        ({"dataset": "digits", "streaming": True, "image_column": "x"}, {"dataset": "digits"}),
        ({"dataset": "who/what", "streaming": True}, {"dataset": "who/what", "streaming": True}),
    ],
)
def test_data_of_an_older_run_are_named_without_what_is_refused_by_now(named, left):
    assert a_record(spec=named).data == left


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            json.dumps({**dataclasses.asdict(a_record()), "format": 3}),
            "has format 3, this version reads up to 2",
        ),
        (json.dumps({**dataclasses.asdict(a_record()), "format": "x"}), "has format 'x'"),
        ("{", "is no JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "lacks "),
        ('{"format": 2}', "it is no record of a run"),
    ],
)
def test_a_record_that_cannot_be_read_is_one_sentence(content, said, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError) as error:
        RunRecord.read(tmp_path)
    text = str(error.value)
    assert said in text and str(tmp_path / "run.json") in text and text.endswith(".") and "\n" not in text


def test_where_there_is_no_run_or_none_that_is_finished_it_is_said(tmp_path):
    assert RunRecord.read(tmp_path) is None
    with pytest.raises(ValueError, match=r"holds no run \(no run\.json\)"):
        RunRecord.of_finished(tmp_path)
    a_record(status="running").write(tmp_path)
    with pytest.raises(ValueError, match="is running; finish it with --resume"):
        RunRecord.of_finished(tmp_path)


def test_nothing_but_the_record_reads_or_writes_run_json():
    """One reader: whoever needs a record asks `RunRecord`."""
    import re
    from pathlib import Path

    import smt_hf

    package = Path(smt_hf.__file__).parent
    opens = re.compile(r"""["']run\.json["']\)?\s*\)?\.(read|write|open)|open\([^)]*run\.json""")
    readers = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if opens.search(p.read_text())}
    assert readers == set()
    names = {p.relative_to(package).as_posix() for p in package.rglob("*.py") if '"run.json"' in p.read_text()}
    assert names <= {"runs/record.py", "hub/push.py", "cli/loading.py"}
