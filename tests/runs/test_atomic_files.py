"""Files that are whole or absent, and JSON in lines that a reader can compare."""

import json
import os

import pytest

from smt_hf.runs.files import one_entry_a_line, write_atomic


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    write_atomic(path, "née")
    assert path.read_text(encoding="utf-8") == "née" and os.listdir(tmp_path) == ["a.txt"]


def test_a_write_that_dies_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def killed(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_json_has_a_line_for_each_row_and_stays_what_it_was():
    record = {
        "what": "né",
        "words": ["a", "b"],
        "rows": [{"a": 1, "b": [1, 2]}, {"a": 2}],
        "none": [],
        "of": {},
    }
    text = one_entry_a_line({**record, "runs": {"x": {"a": 1}, "y": {"b": 2}}})
    assert json.loads(text) == {**record, "runs": {"x": {"a": 1}, "y": {"b": 2}}}
    lines = text.splitlines()
    assert (
        '  {"a": 1, "b": [1, 2]},' in lines and '  "x": {"a": 1},' in lines and ' "words": ["a", "b"],' in lines
    )
    assert json.loads(one_entry_a_line({"a": 1})) == {"a": 1}
