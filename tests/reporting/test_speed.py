"""Stored benchmarks: their ratios, against values worked out by hand, and what their pictures show."""

import json
from pathlib import Path

import pytest

from smt_hf.reporting.speed import DRAW, OFFICIAL, by_context, read_benchmarks, size, slowdown, speedups

STORED = Path(__file__).parents[2] / "results"  # not in a source distribution


def row(model: str, context: int, speed: float, **more) -> dict:
    return {"model": model, "context": context, "tokens_per_second": speed, "state_bytes": context * 10, **more}


DECODE = [row("smt-gru", 64, 90.0), row("gpt2", 64, 25.0), row("smt-gru", 16, 100.0), row("gpt2", 16, 50.0)]


def test_values_are_ordered_by_context_for_each_model_and_method():
    assert by_context(DECODE, "tokens_per_second") == {
        ("smt-gru", ""): {16: 100.0, 64: 90.0},
        ("gpt2", ""): {16: 50.0, 64: 25.0},
    }
    found = by_context(DECODE, "tokens_per_second")["gpt2", ""]
    assert list(found) == [16, 64]


def test_slowdown_is_the_time_of_a_token_at_the_longest_over_the_shortest_context():
    assert slowdown(DECODE) == pytest.approx({("smt-gru", ""): 100 / 90, ("gpt2", ""): 2.0})


def test_speedups_are_over_the_official_algorithm():
    rows = [row("smt-gru", 8, 30.0, method="dmt, 8 sweeps"), row("smt-gru", 8, 20.0, method=OFFICIAL)]
    assert speedups(rows) == {"dmt, 8 sweeps": 1.5, OFFICIAL: 1.0}
    assert speedups(rows[:1]) == {}


def test_sizes_are_in_words():
    assert [size(n) for n in (512, 5120, 655360, 75479040, 2e9)] == [
        "512 B",
        "5.12 kB",
        "655 kB",
        "75.5 MB",
        "2 GB",
    ]


def test_the_decode_picture_has_speed_by_context_and_the_state_after_the_most_tokens():
    picture = DRAW["decode"](DECODE)
    speed, state = picture.figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in speed.lines}
    assert lines == {"smt-gru": [[16, 100], [64, 90]], "gpt2": [[16, 50], [64, 25]]}
    assert [bar.get_width() for bar in state.patches] == [640, 640]
    assert "gpt2: 50, then 25, 640 B" in picture.alt
    assert DRAW["decode"](DECODE[:2]) is None  # one context is no curve


@pytest.mark.parametrize("path", sorted(STORED.glob("benchmark-*.json")), ids=lambda path: path.stem)
def test_every_stored_record_is_read_and_drawn(path):
    record = read_benchmarks(STORED)[path.stem]
    picture = DRAW[record["what"]](record["rows"])
    if len({one["context"] for one in record["rows"]}) > 1 or record["what"] in ("prefill", "dmt", "serve"):
        assert all(
            one["model"].removeprefix("smt-") in picture.alt or record["what"] == "dmt"
            for one in record["rows"]
        )
    else:
        assert picture is None


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "benchmark-x.json").write_text(json.dumps({"what": "weather"}))
    with pytest.raises(ValueError, match=r"benchmark-x\.json is no record of smt-hf benchmark"):
        read_benchmarks(tmp_path)
