"""A run.json whose values have other types than a run writes is refused: one sentence names file and field."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from handmade_record import a_record

from smt_hf.runs.record import RunRecord


@pytest.mark.parametrize(
    ("name", "value"),
    [("spec", None), ("method", 1), ("phases", None), ("parameters", "x"), ("parameters", True), ("final", 1),
     ("data_kind", "sound"), ("bytes_per_token", "x"), ("seconds", None), ("versions", []),
     ("spec", {"max_corpus_bytes": "x"})],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(tmp_path, name, value: Any):
    (tmp_path / "run.json").write_text(json.dumps({**asdict(a_record()), name: value}))
    with pytest.raises(ValueError, match=r"run\.json") as error:
        RunRecord.read(tmp_path)
    assert (name if not isinstance(value, dict) else "max_corpus_bytes") in str(error.value)


def test_whole_seconds_are_seconds(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({**asdict(a_record()), "seconds": 3}))
    record = RunRecord.read(tmp_path)
    assert record is not None and record.seconds == 3
