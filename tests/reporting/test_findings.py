"""The numbers behind each picture, against values worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import BITS, PROBES, RECORD, SMT_LINES, STACK, evaluation, experiment, rows, write_run

from smt_hf.reporting.findings import (
    ablations,
    compression,
    drift,
    gradient_reach,
    handover,
    mean_drift,
    parts,
    shown_runs,
    summary,
    teacher_values,
)
from smt_hf.reporting.study import Run, read_run

LN2 = math.log(2)


def read(folder: Path, metric: str | None = "accuracy", **files) -> Run:
    write_run(folder, **files)
    return read_run(folder, metric)


def test_drift_is_that_of_the_last_evaluation_of_each_phase(tmp_path):
    one = read(tmp_path / "a", lines=SMT_LINES)
    assert drift(one, "smt") == {1: 0.4, 2: 0.8}
    assert drift(one, "dmt") == {1: 0.1, 2: 0.2}
    assert drift(read(tmp_path / "b", lines=[evaluation("bptt", 10, 0.5)]), "dmt") == {}
    other = read(tmp_path / "c", lines=[evaluation("dmt", 40, 0.9, {2: 0.6, 4: 1.0})])
    assert mean_drift([one, other], "dmt") == pytest.approx({1: 0.1, 2: 0.4, 4: 1.0})


def test_dmt_begins_after_the_last_evaluation_of_smt(tmp_path):
    curve = read(tmp_path, lines=SMT_LINES).evaluations
    assert [(one.tokens, one.value) for one in curve] == [(1000, 0.3), (2000, 0.4), (3000, 0.8), (4000, 0.9)]
    last = handover(curve)
    assert last is not None and (last.tokens, last.seconds, last.sequential_steps) == (2000, 2.0, 40)
    assert handover(curve[:2]) is None and handover(curve[2:]) is None


def test_a_curve_of_text_is_in_bits_and_needs_the_bytes_of_a_token(tmp_path):
    line = evaluation("smt", 10, 0.3)
    line["evaluation"]["loss"] = 3 * LN2

    def values(name: str, metric: str, **files) -> list[float]:
        return [one.value for one in read(tmp_path / name, metric, lines=[line], **files).evaluations]

    known = {**RECORD, "data_kind": "text", "bytes_per_token": 1.5}
    assert values("a", "bits per byte", record=known) == pytest.approx([2.0])
    assert values("b", "bits per byte") == []
    assert values("c", "bits per dimension") == pytest.approx([3.0])


def test_the_gradient_at_a_distance_is_the_median_of_the_runs_that_reach_it():
    reaches = [[1.0, 0.2, 0.1], [1.0, 0.4], [1.0, 0.9, 0.5]]
    runs = [Run("a", probes={"gradient_reach": reach}) for reach in reaches]
    assert gradient_reach([*runs, Run("b")]) == pytest.approx([1.0, 0.4, 0.3])
    assert gradient_reach([Run("c")]) == []


def test_a_record_says_what_the_run_was_and_what_it_cost(tmp_path):
    found = read(tmp_path, record=RECORD).record
    assert found is not None
    assert (found.phases, found.versions) == (
        "smt:0-0.5:0.002 dmt:0.5-1:0.0015", "smt-hf 0.1.0, torch 2.9, transformers 5.23",
    )  # fmt: skip
    assert (found.num_encoder_layers, found.final, found.max_steps) == (2, {64: 0.9}, None)
    bptt = read(tmp_path / "bptt", record={**RECORD, "teacher": None, "git_commit": None}).record
    assert bptt is not None and (bptt.num_encoder_layers, bptt.commit) == (None, "")


def test_a_record_that_lacks_a_name_is_named_with_it(tmp_path):
    with pytest.raises(ValueError, match=r"run\.json lacks state_bytes; it is no record"):
        read(tmp_path, record={name: value for name, value in RECORD.items() if name != "state_bytes"})


def test_a_probe_is_shown_of_the_first_seed_of_the_best_runs_at_the_longest_length_that_has_it(tmp_path):
    longer = rows("gru", "smt", 2e-3, {256: 0.5}, length_trained=256)
    study = experiment(tmp_path, [*STACK, *longer], probes=PROBES)
    assert [(length, key.cell) for length, key, _ in shown_runs(study, "memory_map")] == [(256, "gru")]
    study = experiment(tmp_path / "short", STACK, probes=PROBES)
    assert [run.name for *_, run in shown_runs(study, "memory_map")] == [
        "gru-smt-0.002--64-0", "gru-bptt-0.001--64-0", "transformer-smt-0.002--64-0",
        "transformer-bptt-0.0003--64-0",
    ]  # fmt: skip
    assert shown_runs(study, "nothing") == []


def sized(cell: str, tokens: int, width: int, value: float, **changes) -> list[dict]:
    changes["variant"] = f"hidden-size={width},num-memory-tokens={tokens}"
    return rows(cell, "smt", 2e-3, {64: value}, **changes)


def test_compression_gives_the_scores_by_bytes_of_the_recipe_and_its_sizes(tmp_path):
    plain = rows("gru", "smt", 2e-3, {64: 0.9, 128: 0.1})
    others = rows("gru", "smt", 2e-3, {64: 0.3}, variant="num-labels=4")
    table = [*plain, *sized("gru", 1, 16, 0.5), *sized("gru", 1, 16, 0.7, seed=1), *sized("gru", 2, 32, 0.8)]
    one = experiment(tmp_path, [*table, *others, *sized("lstm", 1, 16, 0.2)], record=RECORD)
    for name, run in one.runs.items():  # a state of each size
        size = 64 if "=16" in name else 256 if "=32" in name else 1024
        assert run.record is not None
        one.runs[name] = replace(run, record=replace(run.record, state_bytes=size))
    (part,) = parts(one, variants=True).values()
    assert compression(one, part) == {("gru", "smt"): {64: [0.5, 0.7], 256: [0.8], 1024: [0.9]}}


def test_ablations_are_the_variants_that_change_more_than_the_size():
    table = [
        *rows("gru", "smt", 2e-3, {64: 0.9, 128: 0.1}),
        *rows("gru", "smt", 2e-3, {64: 0.5}, variant="num-labels=4"),
        *rows("gru", "smt", 2e-3, {64: 0.7}, variant="num-labels=4", seed=1),
        *sized("gru", 1, 16, 0.4),
        *rows("lstm", "smt", 2e-3, {64: 0.9}),
    ]
    assert ablations(table) == {("gru", "smt"): {"": [0.9], "num-labels=4": [0.5, 0.7]}}


def test_the_summary_has_the_best_bptt_and_the_teacher_of_every_seed(tmp_path):
    one = experiment(tmp_path, STACK, probes=PROBES)
    gru, transformer = summary(one)
    assert gru == (64, "gru", [0.99, 0.97], [0.9, 0.7], 1e-3, [0.95, 0.95], "")
    assert transformer == (64, "transformer", [0.5], [0.25], 3e-4, [0.95], "")


def test_the_summary_has_a_line_for_a_preset_beside_the_same_bptt(tmp_path):
    table = [
        *rows("gru", "smt", 2e-3, {64: 0.6}), *rows("gru", "bptt", 1e-3, {64: 0.9}),
        *rows("gru", "smt", 2e-3, {64: 0.7}, variant="projected"),
        *rows("gru", "smt", 2e-3, {64: 0.8}, variant="num-labels=4"),
    ]  # fmt: skip
    plain, preset = summary(experiment(tmp_path, table))
    assert (plain.smt, plain.bptt, plain.preset) == ([0.6], [0.9], "")
    assert (preset.smt, preset.bptt, preset.preset) == ([0.7], [0.9], ", preset text")


def test_a_teacher_of_text_is_in_bits_by_horizon_and_as_a_whole_under_zero(tmp_path):
    teacher = {"loss": 2 * LN2, "accuracy": 0.5, "by_horizon": [{"start": 0, "end": 32, "loss": 3 * LN2}]}
    table = rows("gru", "smt", 2e-3, {32: 3.5, 64: 2.5}, **BITS)
    one = experiment(
        tmp_path, table, probes={**PROBES, "teacher": teacher}, record={**RECORD, "data_kind": "text"}
    )
    (values,) = teacher_values(one, table).values()
    assert values == {0: pytest.approx([2.0]), 32: pytest.approx([3.0])}


def test_files_that_are_missing_leave_out_what_needs_them(tmp_path):
    one = experiment(tmp_path / "bare", STACK)
    assert [line.teacher for line in summary(one)] == [[], []]
    assert read_run(tmp_path / "nowhere") == Run("nowhere")


def test_probes_of_another_version_and_broken_files_are_named(tmp_path):
    write_run(tmp_path / "a", probes={**PROBES, "format": 2})
    with pytest.raises(ValueError, match=r"a/probes\.json has format 2 \(this version reads format 1\)"):
        read_run(tmp_path / "a")
    write_run(tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with pytest.raises(ValueError, match=r"b/metrics\.jsonl is not JSON"):
        read_run(tmp_path / "b")
