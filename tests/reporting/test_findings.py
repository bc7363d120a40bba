"""The numbers behind each picture, against values worked out by hand."""

import math

import pytest
from handmade import BITS, PROBES, RECORD, SMT_LINES, STACK, evaluation, experiment, rows, write_run

from smt_hf.experiments.findings import (
    RunFiles,
    ablations,
    compression,
    drift,
    gradient_reach,
    handover,
    learning_curve,
    mean_drift,
    read_run,
    state_bytes,
    summary,
    teacher_values,
)

LN2 = math.log(2)


def run(**files) -> RunFiles:
    return RunFiles(files.get("record"), files.get("lines", []), files.get("probes"))


def test_drift_is_that_of_the_last_evaluation_of_each_phase():
    assert drift(run(lines=SMT_LINES), "smt") == {1: 0.4, 2: 0.8}
    assert drift(run(lines=SMT_LINES), "dmt") == {1: 0.1, 2: 0.2}
    assert drift(run(lines=[evaluation("bptt", 10, 0.5)]), "dmt") == {}
    other = run(lines=[evaluation("dmt", 40, 0.9, {2: 0.6, 4: 1.0})])
    assert mean_drift([run(lines=SMT_LINES), other], "dmt") == pytest.approx({1: 0.1, 2: 0.4, 4: 1.0})


def test_dmt_begins_after_the_last_evaluation_of_smt():
    curve = learning_curve(run(lines=SMT_LINES), "accuracy")
    assert [(line["tokens"], line["value"]) for line in curve] == [
        (1000, 0.3), (2000, 0.4), (3000, 0.8), (4000, 0.9),
    ]  # fmt: skip
    last = handover(curve)
    assert last is not None and (last["tokens"], last["seconds"], last["sequential_steps"]) == (2000, 2.0, 40)
    assert handover(curve[:2]) is None and handover(curve[2:]) is None


def test_a_curve_of_text_is_in_bits_and_needs_the_bytes_of_a_token():
    line = evaluation("smt", 10, 0.3)
    line["evaluation"]["loss"] = 3 * LN2
    known = run(record={"bytes_per_token": 1.5}, lines=[line])
    assert [point["value"] for point in learning_curve(known, "bits per byte")] == pytest.approx([2.0])
    assert learning_curve(run(lines=[line]), "bits per byte") == []
    assert [p["value"] for p in learning_curve(run(lines=[line]), "bits per dimension")] == pytest.approx([3.0])


def test_the_gradient_at_a_distance_is_the_median_of_the_runs_that_reach_it():
    reaches = [[1.0, 0.2, 0.1], [1.0, 0.4], [1.0, 0.9, 0.5]]
    runs = [run(probes={"gradient_reach": reach}) for reach in reaches]
    assert gradient_reach([*runs, run()]) == pytest.approx([1.0, 0.4, 0.3])
    assert gradient_reach([run()]) == []


def test_the_state_is_that_of_the_record_or_of_the_command():
    (row,) = rows(
        "gru", "smt", 1e-3, {64: 1.0}, command="smt-hf pretrain --hidden-size 48 --num-memory-tokens 3"
    )
    assert state_bytes(row, run()) == 4 * 3 * 48
    assert state_bytes(row, run(record={"state_bytes": 7})) == 7
    assert state_bytes({"command": "smt-hf pretrain --preset tiny --hidden-size 8"}, run()) == 4 * 2 * 8


def sized(cell: str, tokens: int, width: int, value: float, **changes) -> list[dict]:
    changes |= {
        "variant": f"hidden-size={width},num-memory-tokens={tokens}",
        "command": f"smt-hf pretrain --hidden-size {width} --num-memory-tokens {tokens}",
    }
    return rows(cell, "smt", 2e-3, {64: value}, **changes)


def test_compression_gives_the_scores_by_bytes_of_the_recipe_and_its_sizes(tmp_path):
    plain = rows("gru", "smt", 2e-3, {64: 0.9, 128: 0.1}, command="smt-hf pretrain --hidden-size 64")
    others = rows("gru", "smt", 2e-3, {64: 0.3}, variant="num-labels=4")
    table = [*plain, *sized("gru", 1, 16, 0.5), *sized("gru", 1, 16, 0.7, seed=1), *sized("gru", 2, 32, 0.8)]
    one = experiment(tmp_path, [*table, *others, *sized("lstm", 1, 16, 0.2)])
    (part,) = one.parts(variants=True).values()
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
    assert gru == (64, "gru", [0.99, 0.97], [0.9, 0.7], 1e-3, [0.95, 0.95])
    assert transformer == (64, "transformer", [0.5], [0.25], 3e-4, [0.95])


def test_a_teacher_of_text_is_in_bits_by_horizon_and_as_a_whole_under_zero(tmp_path):
    teacher = {"loss": 2 * LN2, "accuracy": 0.5, "by_horizon": [{"start": 0, "end": 32, "loss": 3 * LN2}]}
    table = rows("gru", "smt", 2e-3, {32: 3.5, 64: 2.5}, **BITS)
    one = experiment(tmp_path, table, probes={**PROBES, "teacher": teacher}, record=RECORD)
    (values,) = teacher_values(one, table).values()
    assert values == {0: pytest.approx([2.0]), 32: pytest.approx([3.0])}


def test_files_that_are_missing_leave_out_what_needs_them(tmp_path):
    one = experiment(tmp_path / "bare", STACK)
    assert [line.teacher for line in summary(one)] == [[], []]
    assert read_run(tmp_path / "nowhere") == (None, [], None)


def test_probes_of_another_version_and_broken_files_are_named(tmp_path):
    write_run(tmp_path / "a", probes={**PROBES, "format": 2})
    with pytest.raises(ValueError, match=r"a/probes\.json has format 2 \(this version reads format 1\)"):
        read_run(tmp_path / "a")
    write_run(tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with pytest.raises(ValueError, match=r"b/metrics\.jsonl is not JSON"):
        read_run(tmp_path / "b")
