"""Pictures show the numbers they are made of, in colours that can be read on any page."""

import re
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from handmade import IMAGES, MAP, PROBES, RECORD, SMT_LINES, STACK, experiment, rows

from smt_hf.reporting import model_pictures, training_pictures
from smt_hf.reporting.drawing import Picture, inline_svg, pictures_of, save_png
from smt_hf.reporting.looks import COLORS, INK, look
from smt_hf.reporting.model_pictures import memory_maps, tile, variants
from smt_hf.reporting.page import page as whole_page
from smt_hf.reporting.study import Study
from smt_hf.reporting.training_pictures import learning_curves, score_by_length

DRAW = training_pictures.DRAW + model_pictures.DRAW
VARIANTS = [
    *rows("gru", "smt", 2e-3, {64: 0.5}, variant="num-labels=4"),
    *rows("gru", "smt", 2e-3, {64: 0.6}, variant="hidden-size=8"),
]


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


def test_the_page_has_its_own_colours_for_light_and_dark_with_more_contrast():
    styles = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(
        r":root \{(.*?)\}", whole_page([], {}, {}), re.DOTALL)]  # fmt: skip
    assert len(styles) == 3  # light, dark, printed
    for style in styles:
        colors = [style[f"color-{number}"] for number in range(len(COLORS))]
        assert all(contrast(color, style["page"]) >= 3 for color in colors)
        assert all(contrast(style[name], style["page"]) >= 4.5 for name in ("ink", "muted", "link"))
    assert [styles[0][f"color-{number}"].upper() for number in range(len(COLORS))] == [*COLORS]


def test_a_cell_looks_the_same_wherever_it_is_and_unlike_any_other():
    assert look("gru", ["gru"]) == look("gru", ["a:B", "gru", "transformer"])
    cells = ["a:B", "a:C", "gru", "transformer", "lstm"]
    assert len({tuple(look(cell, cells).values()) for cell in cells}) == len(cells)


def test_the_score_by_length_shows_the_best_of_each_cell_and_method(tmp_path):
    longer = rows("gru", "smt", 2e-3, {256: 0.5, 512: 0.4}, length_trained=256)
    picture = score_by_length(experiment(tmp_path, [*STACK, *longer, *VARIANTS], probes=PROBES))
    assert picture is not None
    left, right = picture.figure.axes
    lines = {bar.get_label(): bar.lines[0].get_xydata().tolist() for bar in left.containers}
    assert lines.keys() == {"gru, SMT → DMT", "gru, BPTT", "transformer, SMT → DMT", "transformer, BPTT"}
    assert [x for x, _ in lines["gru, SMT → DMT"]] == [64, 128, 256]
    assert [y for _, y in lines["gru, SMT → DMT"]] == pytest.approx([0.98, 0.85, 0.65])
    assert lines["gru, BPTT"][0] == pytest.approx([64, 0.8])
    assert [bar.lines[0].get_xdata().tolist() for bar in right.containers] == [[256, 512]]
    flat = [line for line in left.lines if list(line.get_xdata()) == [0, 1]]
    cells = [look(cell, ("gru", "transformer"))["color"] for cell in ("gru", "transformer")]
    assert [(line.get_color(), line.get_ydata()[0]) for line in flat] == [
        (cells[0], 0.95), (cells[1], 0.95), (INK, 0.25),
    ]  # fmt: skip
    (legend,) = picture.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*lines, "teacher", "chance"]
    assert "gru, SMT → DMT: 0.980 at 64" in picture.alt


def test_learning_curves_have_one_panel_for_each_cost_and_mark_where_dmt_begins(tmp_path):
    picture = learning_curves(experiment(tmp_path, rows("gru", "smt", 2e-3, {64: 0.9}), lines=SMT_LINES))
    assert picture is not None
    assert [axis.get_xlabel() for axis in picture.figure.axes] == [
        "tokens", "seconds of training", "sequential steps",
    ]  # fmt: skip
    for axis, begins in zip(picture.figure.axes, (2000, 2.0, 40), strict=True):
        curve, mark, _ = axis.lines
        assert curve.get_ydata().tolist() == [0.3, 0.4, 0.8, 0.9]
        assert mark.get_xydata().tolist() == [[begins, 0.4]]
    # A hundredth of the other method's steps is a place of its own.
    assert [axis.get_xscale() for axis in picture.figure.axes] == ["linear", "linear", "log"]


def test_bars_of_variants_stand_under_the_recipe_as_it_is(tmp_path):
    picture = variants(experiment(tmp_path, [*STACK, *VARIANTS]))
    assert picture is not None
    (axis,) = picture.figure.axes
    widths = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axis.patches}
    names = {
        int(at): text.get_text() for at, text in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    }
    assert {names[at]: width for at, width in widths.items()} == pytest.approx(
        {"the recipe as it is": 0.98, "num-labels=4": 0.5}
    )
    assert max(names) == next(at for at, name in names.items() if name == "the recipe as it is")


def test_tiles_stand_side_by_side_and_what_was_not_given_is_empty():
    strip = tile([[3, 2, 1, 0], [1, 1, 1, 1]], height=2, width=2, given=2)
    nan = np.nan
    assert strip.shape == (2, 8 * 3 - 1)
    np.testing.assert_array_equal(strip[:, :6], [[3, 2, nan, 1, 1, nan], [nan] * 6])
    whole = tile(IMAGES["originals"], 2, 2)
    np.testing.assert_array_equal(whole[:, :3], [[3, 2, nan], [1, 0, nan]])


def names(pictures: list[Picture]) -> list[str]:
    return [picture.name for picture in pictures]


def test_what_is_drawn_follows_from_the_files_that_are_there(tmp_path):
    files = {"probes": PROBES, "lines": SMT_LINES, "record": RECORD}
    everything = experiment(tmp_path / "all", [*STACK, *VARIANTS], **files)
    for name in (name for name in everything.runs if "hidden-size" in name):
        run = everything.runs[name]
        assert run.record is not None
        everything.runs[name] = replace(run, record=replace(run.record, state_bytes=128))
    assert names(pictures_of(everything, DRAW)) == [
        "score", "curves", "gradient", "drift", "compression", "variants", "memory", "images",
    ]  # fmt: skip
    assert names(pictures_of(experiment(tmp_path / "none", STACK), DRAW)) == ["score"]
    empty: dict = {"format": 1, "teacher": None, "gradient_reach": [], "memory_map": None, "images": None}
    nulls = experiment(tmp_path / "nulls", STACK, probes=empty, record=RECORD, lines=[])
    assert names(pictures_of(nulls, DRAW)) == ["score"]


def test_a_png_has_no_background_and_an_svg_takes_the_colours_of_its_page(tmp_path):
    picture = score_by_length(experiment(tmp_path, [row | {"cell": f"{row['cell']}$a$&<b>"} for row in STACK]))
    assert picture is not None
    save_png(picture, tmp_path / "stack.png")
    pixels = matplotlib.image.imread(tmp_path / "stack.png")
    assert pixels.shape[-1] == 4 and (pixels[..., 3] == 0).mean() > 0.8
    svg = inline_svg(picture, "a")
    assert svg.startswith("<svg") and svg.endswith("</svg>") and 'role="img"' in svg
    assert "currentColor" in svg and INK not in svg and "gru$a$&amp;&lt;b&gt;" in svg
    assert svg == inline_svg(picture, "a")
    ids = [set(re.findall(r' id="([^"]+)"', inline_svg(picture, salt))) for salt in "ab"]
    assert ids[0] and not ids[0] & ids[1]


def test_a_map_shows_every_memory_where_it_is(tmp_path):
    """Points far from the label of their group, which stands above the others; each has its dot in a PNG."""
    far = [[x, y] for x in (0.0, 10.0, 20.0) for y in (0.0, 10.0, 20.0)]
    many = {**MAP, "points": [*far, *[[100.0, 100.0]] * 10], "groups": ["3"] * 19}
    study: Study = experiment(
        tmp_path, rows("gru", "smt", 2e-3, {64: 1.0}), probes={**PROBES, "memory_map": many}
    )
    picture = memory_maps(study)
    assert picture is not None
    save_png(picture, tmp_path / "map.png")
    pixels = matplotlib.image.imread(tmp_path / "map.png")
    (axis,) = picture.figure.axes
    scale = len(pixels) / picture.figure.bbox.height
    for x, y in axis.transData.transform(far) * scale:
        row, column = len(pixels) - int(y), int(x)
        assert pixels[row - 2 : row + 3, column - 2 : column + 3, 3].max() > 0.4, (x, y)
