"""The results table: what is written is read back, by the version that wrote it, and by no other."""

import csv
import math
from typing import Any

import pytest
from handmade_record import a_record

from smt_hf.runs.results import COLUMNS, read_results, rows_of_run, write_results

LN2 = math.log(2)
VALUES: dict[str, Any] = {
    "data_kind": "task",
    "bytes_per_token": None,
    "dataset": "recall:num_keys=16",
    "cell": "gru",
    "method": "bptt",
    "seed": 3,
    "spec": {"learning_rate": 3e-4},
    "seconds": 61.2345,
    "tokens": 1000,
    "sequential_steps": 77,
    "command": ["smt-hf", "pretrain", "--dataset", "a name, with a comma"],
    "git_commit": None,
}
RECORD = a_record(**VALUES)
TASK_METRICS = {24: {"accuracy": 0.875, "by_horizon": []}, 48: {"accuracy": 1 / 3, "by_horizon": []}}


def test_a_task_gives_one_row_for_each_length_tested():
    rows = rows_of_run("recall", "gru-24", 24, RECORD, TASK_METRICS, chance=0.125)
    assert [(row["length_trained"], row["length_tested"], row["value"]) for row in rows] == [
        (24, 24, 0.875),
        (24, 48, 1 / 3),
    ]
    for row in rows:
        assert (row["experiment"], row["run"], row["task"], row["metric"]) == (
            "recall", "gru-24", "recall:num_keys=16", "accuracy",
        )  # fmt: skip
        assert (row["learning_rate"], row["seed"], row["chance"], row["seconds"]) == (3e-4, 3, 0.125, 61.2)


def test_a_text_gives_one_row_for_each_horizon_in_bits():
    metrics = {64: {"by_horizon": [{"end": 32, "loss": 6 * LN2}, {"end": 64, "loss": 3 * LN2}]}}
    record = a_record(**{**VALUES, "data_kind": "text", "bytes_per_token": 1.5})
    rows = rows_of_run("text", "gru-160", 160, record, metrics, chance=None)
    assert [(row["length_tested"], row["metric"]) for row in rows] == [
        (32, "bits_per_byte"),
        (64, "bits_per_byte"),
    ]
    assert [row["value"] for row in rows] == pytest.approx([4.0, 2.0])


def test_rows_come_back_exactly_and_other_programs_can_read_them(tmp_path):
    path = tmp_path / "results.csv"
    rows = rows_of_run("recall", "gru-24", 24, RECORD, TASK_METRICS, chance=None)
    write_results(path, rows)
    assert read_results(path) == rows
    with open(path, newline="") as file:
        first = next(csv.DictReader(file))
    assert list(first) == list(COLUMNS) and first["chance"] == "" and first["commit"] == ""
    assert first["command"] == "smt-hf pretrain --dataset 'a name, with a comma'"
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_the_variant_is_a_text_and_empty_for_the_recipe_as_it_is(tmp_path):
    rows = rows_of_run("recall", "a", 24, RECORD, TASK_METRICS, None)
    rows += rows_of_run("recall", "b", 24, RECORD, TASK_METRICS, None, variant="num-labels=2")
    write_results(tmp_path / "results.csv", rows)
    variants = [(row["run"], row["variant"]) for row in read_results(tmp_path / "results.csv")]
    assert variants == [("a", "")] * 2 + [("b", "num-labels=2")] * 2


def test_an_absent_or_empty_table_has_no_rows(tmp_path):
    assert read_results(tmp_path / "results.csv") == []
    write_results(tmp_path / "results.csv", [])
    assert read_results(tmp_path / "results.csv") == []


def test_a_table_of_another_version_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    write_results(path, rows_of_run("recall", "gru-24", 24, RECORD, TASK_METRICS, chance=None))
    text = path.read_text()
    for other in (
        text.replace("\n2,", "\n1,"),
        text.replace("chance", "baseline"),
        text.replace("format,", "", 1),
        "a,b\n1,2\n",
        "",
    ):
        path.write_text(other)
        with pytest.raises(
            ValueError, match=r"results\.csv is a results table of another version.*choose another"
        ):
            read_results(path)


def test_a_table_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.csv"
    rows = rows_of_run("recall", "gru-24", 24, RECORD, TASK_METRICS, chance=None)
    write_results(path, rows)
    before = path.read_text()
    with pytest.raises(ValueError):
        write_results(path, [{**rows[0], "no such column": 1}])
    assert path.read_text() == before


def test_a_run_that_stands_twice_is_named(tmp_path):
    path = tmp_path / "results.csv"
    rows = rows_of_run("recall", "gru-24", 24, RECORD, TASK_METRICS, chance=None)
    write_results(path, [*rows, rows[1]])
    with pytest.raises(ValueError, match=r"results\.csv has the run gru-24 at length 48 twice"):
        read_results(path)
