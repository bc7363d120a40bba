# mypy: disable-error-code="arg-type"
"""The table and the picture of an experiment, from rows made by hand."""

import io
from typing import Any

import pytest
from rich.console import Console

from smt_hf.experiments.report import (
    COLORS,
    INK,
    best_groups,
    plot_by_length,
    results_tables,
)
from smt_hf.experiments.results import FORMAT


def rows(cell: str, method: str, rate: float, values: dict[int, float], seed: int = 0, **changes) -> list[dict]:
    shared = {
        "format": FORMAT,
        "experiment": "stack",
        "run": f"{cell}-{method}-{rate}-{seed}",
        "task": "stack",
        "cell": cell,
        "method": method,
        "variant": "",
        "seed": seed,
        "learning_rate": rate,
        "length_trained": 64,
        "metric": "accuracy",
        "chance": 0.25,
        "seconds": 360.0,
        "tokens": 10_000,
        "sequential_steps": 12_345,
        "command": "smt-hf pretrain",
        "commit": "abc",
        **changes,
    }
    return [{**shared, "length_tested": length, "value": value} for length, value in values.items()]


STACK = [
    *rows("gru", "smt", 2e-3, {64: 0.99, 128: 0.9, 256: 0.8}, seed=0),
    *rows("gru", "smt", 2e-3, {64: 0.97, 128: 0.8, 256: 0.5}, seed=1),
    # The best where it was trained, and the worst elsewhere: chosen all the same.
    *rows("gru", "bptt", 1e-3, {64: 0.9, 128: 0.3, 256: 0.3}, seed=0),
    *rows("gru", "bptt", 1e-3, {64: 0.7, 128: 0.3, 256: 0.3}, seed=1),
    # Better than the one above with one seed, worse with the other, and in the mean.
    *rows("gru", "bptt", 3e-3, {64: 0.95, 128: 0.9, 256: 0.9}, seed=0),
    *rows("gru", "bptt", 3e-3, {64: 0.2, 128: 0.9, 256: 0.9}, seed=1),
    *rows("transformer", "smt", 2e-3, {64: 0.5, 128: 0.5, 256: 0.5}),
    *rows("transformer", "bptt", 3e-4, {64: 0.25, 128: 0.25, 256: 0.25}),
]


def printed(rows: list[dict[str, Any]], width: int = 80) -> list[str]:
    file = io.StringIO()
    for table in results_tables(rows):
        Console(file=file, width=width, highlight=False).print(table)
    return file.getvalue().splitlines()


def test_the_learning_rate_is_chosen_where_it_was_trained_by_the_mean_over_seeds():
    assert best_groups(STACK) == [
        ("gru", "", "smt", 2e-3),
        ("gru", "", "bptt", 1e-3),
        ("transformer", "", "smt", 2e-3),
        ("transformer", "", "bptt", 3e-4),
    ]


def test_of_bits_the_fewest_over_all_horizons_are_best():
    bits = {"metric": "bits_per_byte", "chance": None, "experiment": "text"}
    text = [
        *rows("gru", "bptt", 1e-3, {32: 2.0, 64: 2.5}, **bits),
        *rows("gru", "bptt", 3e-3, {32: 2.2, 64: 2.1}, **bits),
    ]
    assert best_groups(text) == [("gru", "", "bptt", 3e-3)]


def test_the_table_gives_mean_and_half_the_range_in_80_columns():
    lines = printed(STACK)
    assert max(map(len, lines)) <= 80 and "…" not in "\n".join(lines)
    line = next(line for line in lines if "gru" in line and "smt" in line)
    assert line.split() == ["gru", "smt", "2", "0.980±0.010", "0.850±0.050", "0.650±0.150", "360", "12.3k"]
    starred = [line.split()[:3] for line in lines if "*" in line][:-1]
    assert starred == [["gru", "bptt", "0.001*"]]  # of the transformer there is nothing to choose from
    assert "best learning rate" in lines[-1] or "best learning rate" in lines[-2]


VARIANTS = ("", "encoder-type=bidirectional", "readout-weight=0,trunk-weight=0")


def test_variants_are_rows_of_their_own_whole_in_80_columns():
    varied = [
        row
        for i, variant in enumerate(VARIANTS)
        for row in rows("transformer", "smt", 2e-3, {64: 0.5 + i / 10, 128: 0.1, 256: 0.1}, variant=variant)
    ]
    assert best_groups(varied) == [("transformer", variant, "smt", 2e-3) for variant in VARIANTS]
    lines = printed(varied)
    assert max(map(len, lines)) <= 80 and "…" not in "\n".join(lines)
    assert [value for line in lines for value in line.split() if value in ("0.500", "0.600", "0.700")] == [
        "0.500",
        "0.600",
        "0.700",
    ]
    names = "".join(line.split("  smt")[0].strip() for line in lines)
    assert all(variant in names for variant in VARIANTS), names
    assert "transformer cell" in lines[0] and not any("trunk" in line and "transf" in line for line in lines)
    two_cells = printed([*varied, *STACK])
    assert max(map(len, two_cells)) <= 80 and "0.700" in "".join(two_cells)
    assert not any("variant" in line for line in printed(STACK))


def test_each_training_length_has_a_table_of_its_own():
    longer = rows("gru", "smt", 2e-3, {256: 0.5}, length_trained=256)
    titles = [line for line in printed([*longer, *STACK]) if "trained at" in line]
    assert ["trained at 64" in title for title in titles] == [True, False]


def luminance(color: str) -> float:
    """Relative luminance. Source: WCAG 2.2."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#FFFFFF", "#0D1117"])
def test_every_colour_is_readable_on_a_light_and_on_a_dark_page(page):
    """3 for lines and 4 for text, which WCAG asks to be 3 and, of small text, 4.5."""
    assert all(contrast(color, page) >= 3 for color in COLORS), [contrast(c, page) for c in COLORS]
    assert contrast(INK, page) >= 4


def test_the_picture_shows_the_best_of_each_cell_and_method(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    figures: list[Any] = []
    monkeypatch.setattr(plt, "close", figures.append)
    longer = rows("gru", "smt", 2e-3, {256: 0.5, 512: 0.4}, length_trained=256)
    plot_by_length([*STACK, *longer], tmp_path / "stack.png")
    monkeypatch.undo()
    assert (tmp_path / "stack.png").read_bytes().startswith(b"\x89PNG")
    left, right = figures[0].axes
    lines = {bar.get_label(): bar.lines[0].get_xydata().tolist() for bar in left.containers}
    assert lines.keys() == {
        "gru, SMT → DMT",
        "gru, BPTT (0.001)",
        "transformer, SMT → DMT",
        "transformer, BPTT (0.0003)",
    }
    assert [x for x, _ in lines["gru, SMT → DMT"]] == [64, 128, 256]
    assert [y for _, y in lines["gru, SMT → DMT"]] == pytest.approx([0.98, 0.85, 0.65])
    assert [bar.lines[0].get_xdata().tolist() for bar in right.containers] == [[256, 512]]
    plt.close(figures[0])


def test_the_picture_has_no_background(tmp_path):
    import matplotlib.image

    plot_by_length(STACK, tmp_path / "stack.png")
    pixels = matplotlib.image.imread(tmp_path / "stack.png")
    assert pixels.shape[-1] == 4 and (pixels[..., 3] == 0).mean() > 0.8
