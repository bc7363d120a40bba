"""Markdown tables, against figures worked out by hand."""

import math
from pathlib import Path

import pytest
from handmade import BITS, PROBES, RECORD, STACK, evaluation, experiment, rows

from smt_hf.reporting.record_tables import record_tables
from smt_hf.reporting.study import Study
from smt_hf.reporting.tables import tables_of
from smt_hf.runs.files import one_entry_a_line

ORDER = ["retrieval", "stack", "sweeps", "text"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def made(name: str, *studies: Study, folder: Path = Path("nowhere")) -> list[list[str]]:
    """The head and the rows of a table."""
    head, rule, *lines = tables_of(folder, studies, ORDER)[name]()
    assert set(rule) == {"|", "-"} and rule.count("|") == len(cells(head)) + 1
    return [cells(head), *map(cells, lines)]


def test_a_study_has_a_row_for_each_group_the_best_of_several_rates_in_bold(tmp_path):
    head, *lines = made("runs live", experiment(tmp_path / "live", STACK, probes=PROBES, record=RECORD))
    assert head == ["", "method", "seeds", "64", "128", "256", "teacher", "seconds", "sequential steps"]
    assert lines[0] == [
        "gru", "SMT → DMT", "2", "0.980±0.010", "0.850±0.050", "0.650±0.150", "0.950±0.000", "360", "12.3k",
    ]  # fmt: skip
    assert lines[1][:4] == ["gru", "BPTT 0.001", "2", "**0.800±0.100**"]
    assert lines[2][:4] == ["gru", "BPTT 0.003", "2", "0.575±0.375"]
    assert [line[:2] for line in lines[3:]] == [["transformer", "SMT → DMT"], ["transformer", "BPTT 0.0003"]]


def test_a_study_of_two_lengths_has_a_table_for_each_and_variants_go_by_their_name(tmp_path):
    longer = rows("gru", "smt", 2e-3, {256: 0.5}, length_trained=256, variant="num-labels=4")
    study = experiment(tmp_path / "both", [*STACK, *longer])
    assert made("runs both 256", study)[1][:4] == ["num-labels=4", "SMT → DMT", "1", "0.500"]
    assert len(made("runs both 64", study)) == 6 and "runs both" not in tables_of(tmp_path, [study], ORDER)


def test_the_summary_stands_in_the_order_given_and_has_four_times_the_length(tmp_path):
    earlier = rows("gru", "smt", 2e-3, {64: 1.0}, experiment="retrieval", task="retrieval")
    own = experiment(tmp_path / "own", rows("gru", "smt", 2e-3, {64: 1.0}, experiment="mine"))
    change = experiment(tmp_path / "sweeps", rows("gru", "smt", 2e-3, {64: 1.0}, experiment="sweeps"))
    studies = [experiment(tmp_path / "stack", STACK, probes=PROBES), experiment(tmp_path / "r", earlier)]
    _, *lines = made("summary", *studies, own, change)
    assert [line[0] for line in lines] == ["retrieval", "stack", "stack"]
    assert lines[1][1:] == [
        "gru", "64", "2/2", "0.980±0.010", "0.800±0.100", "0.950±0.000", "0.250", "0.650±0.150", "0.300±0.000",
    ]  # fmt: skip
    assert lines[0][3:6] == ["1/0", "1.000", ""]


def test_the_readme_has_the_shortest_and_the_longest_length_of_two_cells(tmp_path):
    table = [
        one for length in (16, 32, 64) for cell in ("gru", "mlp")
        for one in rows(cell, "smt", 2e-3, {length: 1.0}, length_trained=length)
    ]  # fmt: skip
    assert [line[:3] for line in made("readme", experiment(tmp_path, table))[1:]] == [
        ["stack", "gru", "16"], ["stack", "gru", "64"],
    ]  # fmt: skip


def test_the_first_evaluation_that_is_right_counts_and_all_seeds_have_to_get_there(tmp_path):
    study = experiment(tmp_path, STACK)
    at = {"gru-smt-0.002--64-0": (10, 30), "gru-smt-0.002--64-1": (20, 30), "gru-bptt-0.001--64-0": (40, 50)}
    lines = {name: [evaluation("smt", n, 0.99 + 0.01 * (n > 25)) for n in both] for name, both in at.items()}
    for name, run in experiment(tmp_path / "curves", STACK, record=RECORD, lines=[]).runs.items():
        study.runs[name] = run
    for name, found in lines.items():
        one = experiment(
            tmp_path / name, [row for row in STACK if row["run"] == name], record=RECORD, lines=found
        )
        study.runs[name] = one.runs[name]
    # Medians of 10 and 20 for SMT; one seed of BPTT never gets there, and the transformer has no evaluation.
    assert made("first", study)[1:] == [["stack", "gru", "64", "2", "–", "1.5k", "–", "30", "–"]]


def test_equal_budgets_are_read_off_where_the_shorter_run_ends(tmp_path):
    table = [*rows("gru", "smt", 2e-3, {64: 0.9}), *rows("gru", "bptt", 1e-3, {64: 0.8})]
    study = experiment(
        tmp_path / "live", table, record=RECORD, lines=[evaluation("smt", 10, 0.2), evaluation("smt", 20, 0.4)]
    )
    bptt = experiment(
        tmp_path / "other",
        table[1:],
        record=RECORD,
        lines=[evaluation("bptt", 10, 0.1), evaluation("bptt", 15, 0.6)],
    )
    study.runs.update(bptt.runs)
    head, line = made("budgets live", study)
    assert head == ["data", "cell", "seeds", "equal time", "equal tokens", "equal sequential steps"]
    assert line == ["stack 64", "gru", "1", *["0.300 / 0.600"] * 3]
    alone = experiment(tmp_path / "alone", table[:1], record=RECORD, lines=[evaluation("smt", 10, 0.2)])
    assert tables_of(tmp_path, [alone], ORDER)["budgets alone"]() == []


def test_runs_by_name_have_one_figure_or_one_for_each_horizon(tmp_path):
    task = experiment(tmp_path / "task", rows("gru", "smt", 2e-3, {64: 0.9}))
    assert made("each task", task) == [
        ["run", "accuracy", "seconds", "tokens", "sequential steps"],
        ["gru-smt-0.002--64-0", "0.900", "360", "10k", "12.3k"],
    ]
    text = experiment(tmp_path / "text", rows("gru", "smt", 2e-3, {32: 3.0, 64: 2.0}, **BITS))
    assert made("each text", text)[0][:3] == ["run", "32", "64"]
    assert made("each text", text)[1][1:3] == ["3.000", "2.000"]


def test_the_reach_has_two_digits_of_the_median_and_nothing_beyond_its_end(tmp_path):
    probes = {**PROBES, "gradient_reach": [0.5**d for d in range(17)]}
    both = [
        experiment(tmp_path / name, rows("gru", method, 2e-3, {64: 1.0}), probes=probes)
        for name, method in (("retrieval256", "smt"), ("text", "bptt"))
    ]
    assert made("reach", *both)[1:] == [
        ["retrieval at 256", "gru", "SMT", "0.0039", "1.5e-05", "", "", "", ""],
        ["text", "gru", "BPTT", "0.0039", "1.5e-05", "", "", "", ""],
    ]
    with pytest.raises(ValueError, match="needs the study text"):
        tables_of(tmp_path, both[:1], ORDER)["reach"]()


def test_sweeps_are_told_in_nats_beside_the_rollout_with_the_same_labels(tmp_path):
    bits = {"": 2.0, "dmt-label-every=16": 3.0, "num-sweeps=8": 2.1, "num-sweeps=15": 1.9,
            "num-sweeps=8,dmt-label-every=16": 3.0, "num-sweeps=15,dmt-label-every=16": 3.5}  # fmt: skip
    table = [
        row
        for variant, value in bits.items()
        for row in rows("gru", "smt", 2e-3, {64: value / math.log(2)}, variant=variant, **BITS)
    ]
    assert made("sweeps-loss", experiment(tmp_path / "sweeps", table))[1:] == [
        ["sequential", "2.000", "3.000"],
        ["8 sweeps", "2.100 (+0.100)", "3.000 (+0.000)"],
        ["15 sweeps", "1.900 (−0.100)", "3.500 (+0.500)"],
    ]


RECORDS: dict[str, list[dict]] = {
    "benchmark-decode": [
        {"model": model, "context": context, "parameters": 7.25e6, "tokens_per_second": speed,
         "floor_fraction": 0.5, "state_bytes": 4096, "peak_memory_bytes": 9e7}
        for model, speeds in (("smt-gru", {4096: 80.4, 16: 100.4}), ("other", {16: 1.0, 4096: 2.0}))
        for context, speed in speeds.items()
    ],
    "trials-int8": [
        {"model": "smt-gru", "dtype": "float32", "tokens_per_second": 100.0},
        {"model": "smt-gru", "dtype": "int8", "tokens_per_second": 225.0},
        {"run": "a", "dtype": "float32", "bits_per_byte": 3.0},
        {"run": "a", "dtype": "int8", "bits_per_byte": 3.5},
    ],
    "trials-prepack": [{"model": "smt-gru", "rows": 8, "plain": 0.004, "prepacked": 0.003}],
    "trials-prepack-epyc": [{"model": "smt-gru", "rows": 2, "plain": 0.004, "prepacked": 0.002}],
    "teachers-example": [{"variant": "bptt", "seed": 0, "bits_per_byte": 2.0, "cpu_seconds": 4.2, "steps": 7}],
    "teachers-mixture": [{"variant": "stored", "seed": 0, "bits_per_byte": 1.7, "cpu_seconds": 9, "steps": 8}],
    "teachers-started": [{"variant": "started", "seed": 0, "bits_per_byte": 1.6, "cpu_seconds": 9, "steps": 8}],
    "names": [
        {"method": name, "learning_rate": rate, "accuracy": right, "cpu_seconds": 60.1,
         "steps": 2000 + 9 * seed, "sequential_steps": 3000}
        for name, rate, seed, right in (("bptt", 3e-4, 0, 0.5), ("smt", 2e-3, 0, 0.5), ("smt", 2e-3, 2, 0.7))
    ],
    "teachers": [
        {"variant": name, "seed": seed, "bits_per_byte": bits, "cpu_seconds": 420.2, "steps": 1000 + seed}
        for seed, name, bits in ((0, "bptt", 1.9), (0, "soft", 1.8), (1, "bptt", 2.0))
    ],
    "scaling": [
        {"method": method, "processes": processes, "threads": threads, "tokens_per_second": speed + more}
        for method in ("smt", "bptt") for more in (-1, 0, 500)
        for processes, threads, speed in ((1, 1, 1000), (1, 2, 1500), (2, 1, 1600))
    ],
    "benchmark-train": [
        {"model": model, "method": "smt", "context": context, "tokens_per_second": 9.6, "sequential_steps": 1}
        for context in (128, 1024) for model in ("b", "a")
    ],
}  # fmt: skip
WANTED = {
    "decode": [[*cells, "0.50", "4,096", "90"] for cells in (
        ["smt-gru", "7.2 M", "100", "80"], ["other", "7.2 M", "1", "2"])],
    "speed": [["smt-gru", "100", "80", "4,096"]],
    "int8-speed": [["smt-gru", "100", "225", "2.25"]],
    "int8-bits": [["a", "3.000", "3.500"]],
    "prepack": [["8", "4.00", "3.00", "0.75"]],
    "prepack-epyc": [["2", "4.00", "2.00", "0.50"]],
    "teachers-example": [["bptt", "1", "2.000", "4", "7"]],
    "teachers-mixture": [["stored", "1", "1.700", "9", "8"]],
    "teachers-started": [["started", "1", "1.600", "9", "8"]],
    "names": [
        ["smt, 0.002", "2", "0.600±0.100", "60", "2,009", "3,000"],
        ["bptt, 0.0003", "1", "0.500", "60", "2,000", "3,000"],
    ],
    "teachers": [["bptt", "2", "1.950±0.050", "420", "1,000"], ["soft", "1", "1.800", "420", "1,000"]],
    "scaling": [[name, "1,000", "1,500", "1,600", "0.80"] for name in ("SMT → DMT", "BPTT")],
    "train": [[model, "smt", n, "10", "1"] for model in ("b", "a") for n in ("128", "1,024")],
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_tables_of_records_have_their_figures(tmp_path, name):
    for file, found in RECORDS.items():
        (tmp_path / f"{file}.json").write_text(one_entry_a_line({"rows": found}))
    assert made(name, folder=tmp_path)[1:] == WANTED[name]


def test_a_record_that_is_not_stored_gives_no_table(tmp_path):
    assert record_tables(tmp_path) == {}
