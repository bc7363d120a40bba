"""The packed form of a study: the same study, in a few small files, or one sentence about what is wrong."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from handmade import IMAGES, MAP, PROBES, RECORD, SMT_LINES, STACK, experiment, rows, write_run

from smt_hf.reporting.packed import PACKED, find_studies, pack, read_study, rounded
from smt_hf.reporting.study import Study


@pytest.fixture
def live(tmp_path) -> Study:
    lines = [{**line, "seconds": round(1.0037 * number, 3)} for number, line in enumerate(SMT_LINES)]
    return experiment(tmp_path / "live", STACK, record=RECORD, lines=lines, probes=PROBES)


@pytest.fixture
def packed(live, tmp_path) -> Path:
    pack(live, tmp_path / "packed")
    return tmp_path / "packed"


def test_a_packed_study_has_the_rows_the_evaluations_and_the_record_of_the_live_one(live, packed):
    found = read_study(packed)
    assert found is not None and sorted(path.name for path in packed.iterdir()) == sorted(PACKED)
    assert found.rows == live.rows and (found.name, found.metric, found.chance) == ("stack", "accuracy", 0.25)
    assert list(found.runs) == list(live.runs)
    for name, run in found.runs.items():
        other = live.runs[name]
        assert run.evaluations == other.evaluations and run.record is not None and other.record is not None
        mine, theirs = vars(run.record), vars(other.record)
        told_by_the_table = {"dataset", "learning_rate", "final"}
        assert {k: v for k, v in mine.items() if k not in told_by_the_table} == {
            k: v for k, v in theirs.items() if k not in told_by_the_table
        }


def test_large_probes_are_kept_only_where_a_picture_shows_them(live, packed):
    found = read_study(packed)
    assert found is not None
    kept = {name: set(run.probes or {}) for name, run in found.runs.items()}
    assert kept["gru-smt-0.002--64-0"] == {"teacher", "gradient_reach", "memory_map", "images"}
    assert kept["gru-smt-0.002--64-1"] == kept["gru-bptt-0.003--64-0"] == {"teacher", "gradient_reach"}
    assert found.runs["gru-smt-0.002--64-0"].probes == {
        "teacher": PROBES["teacher"], "gradient_reach": [1.0, 0.5, 0.25], "memory_map": MAP, "images": IMAGES,
    }  # fmt: skip


def test_a_packed_study_is_packed_again_to_the_same_bytes(packed, tmp_path):
    again = read_study(packed)
    assert again is not None
    pack(again, tmp_path / "again")
    for name in PACKED:
        assert (tmp_path / "again" / name).read_bytes() == (packed / name).read_bytes()


@pytest.mark.parametrize("name", ["=1+1.txt", "+1", "-1", "@SUM(A1)", "'=1"])
def test_names_are_no_formulas_of_a_spreadsheet_and_come_back_as_they_were(tmp_path, name):
    table = [{**row, "task": name} for row in STACK]
    study = experiment(tmp_path / "live", table, record={**RECORD, "dataset": name}, lines=SMT_LINES)
    pack(study, tmp_path / "packed")
    for path in (tmp_path / "live" / "results.csv", tmp_path / "packed" / "runs.csv"):
        with open(path, newline="") as file:
            assert {row["task"] for row in csv.DictReader(file)} == {f"'{name}"}
    found = read_study(tmp_path / "packed")
    assert found is not None and found.rows == study.rows
    assert {row["task"] for row in found.rows} == {name}


def test_floats_are_rounded_wherever_they_stand():
    assert rounded({"a": [1.23456, {"b": 0.00123456}], "n": 12345, "s": "1.23456", "x": None}, 3) == {
        "a": [1.23, {"b": 0.00123}], "n": 12345, "s": "1.23456", "x": None,
    }  # fmt: skip


def test_nothing_is_overwritten(live, packed):
    before = {path: path.read_bytes() for path in packed.iterdir()}
    with pytest.raises(FileExistsError, match="packed exists; name a new folder"):
        pack(live, packed)
    assert {path: path.read_bytes() for path in packed.iterdir()} == before


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"lines": SMT_LINES}, r"has no run\.json; a packed study needs that of every run"),
        ({"record": {**RECORD, "status": "running"}, "lines": SMT_LINES}, "is running; finish it first"),
        ({"record": RECORD}, r"has no evaluations \(metrics\.jsonl\)"),
    ],
)
def test_a_run_that_cannot_be_packed_is_named_and_nothing_is_written(tmp_path, files, told):
    study = experiment(tmp_path / "live", rows("gru", "smt", 2e-3, {64: 0.9}), **files)
    with pytest.raises(ValueError, match=rf"gru-smt-0\.002--64-0.* {told}|gru-smt-0\.002--64-0 {told}"):
        pack(study, tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_study_that_lacks_a_file_is_named_with_it(packed, name):
    (packed / name).unlink()
    with pytest.raises(ValueError, match=f"packed lacks {name} of a packed study"):
        read_study(packed)
    assert find_studies(packed.parent)[-1] == packed


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("runs.csv", "experiment,run", "experiment,name", r"runs\.csv has columns of another version"),
        ("scores.csv", "run,length_tested", "run,length", r"scores\.csv has columns of another version"),
        ("runs.csv", ",64,4,1,2,", ",many,4,1,2,", r"runs\.csv has a field of another kind"),
        ("scores.csv", "gru-smt-0.002--64-0,64", "other,64", r"scores\.csv names the run other"),
        ("evaluations.csv", "\ngru-smt-0.002--64-0,", "\nother,", r"evaluations\.csv names the run other"),
        ("probes.json", '"gru-smt-0.002--64-0"', '"other"', r"probes\.json names the run other"),
        ("probes.json", '"format": 1', '"format": 2', r"probes\.json has format 2 \(this version"),
        ("probes.json", '"format": 1', '"format"', r"probes\.json is not JSON"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_or_is_of_another_version_is_told(packed, name, old, new, told):
    change(packed / name, old, new)
    with pytest.raises(ValueError, match=told):
        read_study(packed)


@pytest.mark.parametrize("name", ["runs.csv", "scores.csv"])
def test_a_row_that_stands_twice_is_named(packed, name):
    lines = (packed / name).read_text(encoding="utf-8").splitlines(keepends=True)
    (packed / name).write_text("".join([*lines, lines[1]]), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name} has gru-smt-0\.002--64-0.* twice"):
        read_study(packed)


def test_a_run_without_a_score_is_named(packed):
    lines = (packed / "scores.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (packed / "scores.csv").write_text("".join(one for one in lines if not one.startswith("transformer-b")))
    with pytest.raises(ValueError, match="has no score of the run transformer-bptt"):
        read_study(packed)


def test_both_forms_in_one_folder_are_told(live, packed):
    shutil.copy(packed / "runs.csv", live.folder)
    with pytest.raises(ValueError, match=r"holds a live study .* and a packed one"):
        read_study(live.folder)


def test_a_live_record_of_something_else_is_told(tmp_path):
    study = experiment(tmp_path, rows("gru", "smt", 2e-3, {64: 0.9}))
    write_run(tmp_path / study.rows[0]["run"], record={"status": "finished"})
    with pytest.raises(ValueError, match=r"run\.json lacks .*; it is no record"):
        read_study(tmp_path)
    assert json.loads((tmp_path / study.rows[0]["run"] / "run.json").read_text()) == {"status": "finished"}
