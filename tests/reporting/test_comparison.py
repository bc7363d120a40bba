# Keyword dictionaries of mixed values, and the unions that transformers annotates.
# mypy: disable-error-code="arg-type, misc, union-attr"
"""Finished runs side by side: the figures of their records, in 80 columns, and their curves."""

import io
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from handmade import RECORD
from rich.console import Console

from smt_hf.reporting.comparison import (
    comparison_tables,
    equal_budget_table,
    plot_learning_curves,
    read_runs,
)
from smt_hf.reporting.formats import short
from smt_hf.reporting.looks import COLORS
from smt_hf.reporting.study import Run

LN2 = math.log(2)


def text_record(cell: str, method: str = "smt", ends: tuple[int, ...] = (32, 64, 128, 256), **changes) -> dict:
    """A run whose bits per byte are 2.1, 2.2, … by horizon."""
    starts = (0, *ends[:-1])
    by_horizon = [
        {"start": a, "end": b, "loss": (2.1 + i / 10) * LN2, "accuracy": 0.4}
        for i, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]
    return {
        **RECORD,
        "cell": cell,
        "method": method,
        "seed": 0,
        "dataset": "python-docs",
        "data_fingerprint": "of the data",
        "data_kind": "text",
        "bytes_per_token": 1.0,
        "parameters": 821_376,
        "state_bytes": 2048,
        "seconds": 420.4,
        "sequential_steps": 123_456,
        "sequence_length": 160,
        "final": {"loss": 2.5 * LN2, "accuracy": 0.4, "targets": 9, "by_horizon": by_horizon},
        **changes,
    }


def task_record(method: str, accuracy: float, length: int = 256) -> dict:
    final = {"loss": 0.1, "accuracy": accuracy, "targets": 64, "by_horizon": []}
    task = {"dataset": "retrieval", "data_kind": "task", "bytes_per_token": None, "sequence_length": length}
    return text_record("gru", method, **task, final=final)


def write_run(folder: Path, record: dict[str, Any]) -> Path:
    """The files of a run. Its evaluations are those under "curve" in the record, or two like the final one."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    lines = [{"step": 10, "seconds": 1.0, "tokens": 100, "sequential_steps": 10, "readout_loss": 3.0}]
    for step in () if "curve" in record else (50, 100):
        counts = {"step": step, "seconds": step / 10, "tokens": 10 * step, "sequential_steps": step}
        lines.append({**counts, "evaluation": record["final"]})
    lines += record.get("curve", [])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def as_runs(records: list[dict[str, Any]]) -> list[Run]:
    with tempfile.TemporaryDirectory() as folder:
        return read_runs([write_run(Path(folder, str(i)), record) for i, record in enumerate(records)])


def printed(records: list[dict[str, Any]], width: int = 80) -> list[str]:
    """The lines that `smt-hf compare` prints."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    for table in comparison_tables(as_runs(records)):
        console.print(table)
    return file.getvalue().splitlines()


def row_with(lines: list[str], word: str) -> list[str]:
    (line,) = (line for line in lines if word in line)
    return line.replace("│", " ").split()


def test_the_table_of_texts_holds_the_figures_of_the_records():
    lines = printed([text_record("gru"), text_record("mlp", ends=(32, 64))])
    figures = ["821k", "2.100", "2.200", "2.300", "2.400", "2048", "420", "123k"]
    assert row_with(lines, "gru") == ["gru", "smt", *figures]
    assert row_with(lines, "mlp") == ["mlp", "smt", "821k", "2.100", "2.200", "2048", "420", "123k"]
    heading = " ".join(lines)
    assert "python-docs" in heading and "bits per byte" in heading
    assert all(f"–{end}" in heading for end in (32, 64, 128, 256))


def test_the_table_of_tasks_holds_length_and_accuracy():
    lines = printed([task_record("smt", 1.0), task_record("bptt", 0.125)])
    assert row_with(lines, "bptt") == ["gru", "bptt", "821k", "256", "0.125", "2048", "420", "123k"]
    assert "1.000" in row_with(lines, " smt ")


def test_texts_and_tasks_are_not_mixed_in_one_table():
    runs = [text_record("gru"), task_record("smt", 1.0), text_record("mlp")]
    assert len(comparison_tables(as_runs(runs))) == 2
    assert comparison_tables([]) == []


def test_bits_per_byte_count_the_bytes_of_a_token():
    lines = printed([text_record("gru", bytes_per_token=4.0)])
    assert row_with(lines, "gru")[3:5] == ["0.525", "0.550"]


@pytest.mark.parametrize(
    "record",
    [
        text_record(
            "transformer", "bptt", parameters=123_456_789, seconds=123_456.7, sequential_steps=98_765_432
        ),
        text_record("transformer", "bptt", ends=(32, 64, 128, 256, 512)),
        text_record("transformer", "bptt", ends=(32, 64, 128, 256), state_bytes=16_384),
        text_record("my_cells:LeakyCell", "bptt"),
    ],
    ids=["large numbers", "horizon 512", "large state", "a cell of one's own"],
)
def test_the_table_fits_80_columns_with_every_figure_whole(record):
    lines = printed([record, text_record("gru")])
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    for part in record["final"]["by_horizon"]:
        assert f"{part['loss'] / LN2:.3f}" in text
    for figure in (short(record["parameters"]), str(record["state_bytes"]), f"{record['seconds']:.0f}"):
        assert figure in text


def curve(*points: tuple[int, float]) -> list[dict[str, Any]]:
    """Evaluations at (step, bits per byte); 2 s, 100 tokens and 1 sequential step for each step."""
    return [
        {
            "step": n, "seconds": 2 * n, "tokens": 100 * n, "sequential_steps": n,
            "evaluation": {"loss": bits * LN2},
        }
        for n, bits in points
    ]  # fmt: skip


def equal_budgets(*records: dict[str, Any]) -> list[str]:
    table = equal_budget_table(as_runs(list(records)))
    assert table is not None
    file = io.StringIO()
    Console(file=file, width=80, highlight=False).print(table)
    return file.getvalue().splitlines()


def test_runs_are_compared_where_both_have_used_the_same_budget():
    """SMT is read at the end of BPTT in time and tokens; BPTT, 30 times as deep, at the end of SMT."""
    smt = text_record("gru", "smt", curve=curve((100, 3.0), (200, 2.0)))
    bptt = text_record("gru", "bptt", curve=curve((50, 5.0), (150, 2.75)))
    for line in bptt["curve"]:
        line["sequential_steps"] *= 30
    lines = equal_budgets(smt, bptt)
    assert max(map(len, lines)) <= 80
    # At step 150: half-way from 3.0 to 2.0, and the end of BPTT. At depth 200: before BPTT's first point.
    figures = row_with(lines, "gru")
    assert figures[-9:] == ["2.500", "|", "2.750", "2.500", "|", "2.750", "2.000", "|", "5.000"]


def test_several_seeds_are_given_as_mean_and_half_the_range():
    runs = []
    for seed, bits in ((0, 2.0), (1, 2.4)):
        runs.append(text_record("gru", "smt", seed=seed, curve=curve((100, bits))))
        runs.append(text_record("gru", "bptt", seed=seed, curve=curve((100, 3.0))))
    lines = equal_budgets(*runs)
    assert max(map(len, lines)) <= 80
    assert "2.200±0.200" in "\n".join(lines) and "3.000±0.000" in "\n".join(lines)


def test_without_a_pair_of_the_same_cell_data_and_seed_nothing_is_compared():
    runs = [
        text_record("gru", "smt", curve=curve((100, 2.0))),
        text_record("mlp", "bptt", curve=curve((100, 2.0))),
        text_record("gru", "bptt", curve=curve((100, 2.0)), seed=1),
        text_record("gru", "bptt", curve=curve((100, 2.0)), dataset="verse"),
    ]
    assert equal_budget_table(as_runs(runs)) is None
    assert equal_budget_table([]) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (999, "999"), (1000, "1k"), (123_456, "123k"), (12_345_678, "12.3M"), (1_500_000_000, "1.5G")],
)
def test_large_numbers_are_shortened(number, text):
    assert short(number) == text


@pytest.mark.parametrize("number", [999_600, 999_999, 999_999_999])
def test_shortening_never_falls_back_to_powers_of_ten(number):
    assert "e+" not in short(number)


def test_runs_are_read_with_the_evaluations_as_their_curve(tmp_path):
    (run,) = read_runs([write_run(tmp_path / "a", text_record("gru"))])
    assert run.record is not None and (run.record.cell, run.name) == ("gru", "a")
    assert [one.step for one in run.evaluations] == [50, 100]


def test_a_folder_without_a_finished_run_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(ValueError, match=f"{tmp_path / name} holds no run"):
            read_runs([tmp_path / name])
    write_run(tmp_path / "half", text_record("gru", status="running"))
    with pytest.raises(ValueError, match=f"{tmp_path / 'half'} is running; finish it with --resume"):
        read_runs([tmp_path / "half"])


def test_learning_curves_are_drawn_as_a_png_with_one_row_for_each_dataset(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = [
        text_record("gru"),
        text_record("mlp", "bptt"),
        task_record("smt", 1.0),
        task_record("bptt", 0.1),
    ]
    runs = read_runs([write_run(tmp_path / str(i), record) for i, record in enumerate(records)])
    path = tmp_path / "new" / "folder" / "curves.png"
    plot_learning_curves(runs, path)
    image = plt.imread(path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n") and image.shape[0] > 500
    colors = {tuple(pixel) for pixel in (image[::2, ::2, :3] * 255).astype(int).reshape(-1, 3)}
    for cell in (0, 3):  # gru and mlp, in the colours that they have in every picture
        assert tuple(int(COLORS[cell][i : i + 2], 16) for i in (1, 3, 5)) in colors
    assert plt.get_fignums() == []


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'smt-hf\[report\]'"):
        plot_learning_curves([], tmp_path / "curves.png")
