"""The page: whole in itself, escaped, and with every experiment and every figure of the tables."""

import shlex
from html.parser import HTMLParser

import pytest
from handmade import PROBES, RECORD, SMT_LINES, STACK, experiment, rows

from smt_hf.reporting import model_pictures, training_pictures
from smt_hf.reporting.drawing import name_of, pictures_of
from smt_hf.reporting.findings import Summary
from smt_hf.reporting.groups import group_key
from smt_hf.reporting.page import TEMPLATE, figures, page
from smt_hf.reporting.speed import DRAW

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "<script>alert('a')</script>&\"$x"


class Reader(HTMLParser):
    """Fails on tags that do not match, and keeps references, ids, pictures and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.pictures: list[dict] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.references += [found[name] for name in ("href", "src", "xlink:href", "srcset") if found.get(name)]
        self.ids += [found["id"]] if "id" in found else []
        self.pictures += [found] if tag in ("svg", "img") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


BENCHMARK = {
    "what": "train", "command": ["benchmark", "train"], "dtype": "float32", "repeats": 3,
    "machine": {"processor": "P", "device": "cpu", "cores": 2, "torch": "2", "transformers": "5",
                "smt_hf": "0.1"},
    "rows": [
        {"model": "smt-gru", "method": method, "parameters": 1e6, "context": context, "tokens_per_second": 1e4,
         "range": [9e3, 1.1e4], "sequential_steps": 1}
        for method in ("smt", "bptt") for context in (8, 64)
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    hostile = [
        row | {"experiment": HOSTILE, "cell": HOSTILE, "command": shlex.quote(HOSTILE)} for row in STACK[:3]
    ]
    found = [
        experiment(folder / "stack", STACK, probes=PROBES, lines=SMT_LINES, record=RECORD),
        experiment(folder / "again", STACK),
        experiment(folder / "hostile", hostile),
    ]
    draw = training_pictures.DRAW + model_pictures.DRAW
    drawn = [(one, pictures_of(one, draw)) for one in found]
    recipes = {"stack": "name what is popped"}
    return page(drawn, {"benchmark-train": (BENCHMARK, DRAW["train"](BENCHMARK["rows"]))}, recipes)


def test_the_page_parses_and_needs_nothing_else(html):
    reader = read(html)
    assert "script" not in reader.tags
    outside = [one for one in reader.references if not one.startswith(("#", "data:image/png;base64,"))]
    assert outside == [] and "url(http" not in html and "@import" not in html
    assert len(set(reader.ids)) == len(reader.ids)
    assert {one[1:] for one in reader.references if one.startswith("#")} <= set(reader.ids)


def test_every_picture_says_what_it_shows(html):
    pictures = read(html).pictures
    assert len(pictures) == 6 + 1 + 1 + 1  # score, curves, gradient, drift, memory, images; score twice; speed
    assert all(len(picture.get("aria-label", "")) > 20 for picture in pictures)


def test_every_experiment_is_on_it_with_its_figures_and_commands(html):
    text = read(html).text
    for part in (
        "stack (again)", "0.980±0.010", "BPTT 0.001 ★", "BPTT 0.003", "0.950±0.000",
        "1 CPU core; smt-hf 0.1.0", "smt-hf experiment stack --lengths 64 --cells gru transformer --seeds 0 1",
        "smt-hf benchmark train", "×1.00", "chance 0.250", "Name what is popped.",
    ):  # fmt: skip
        assert part in text, part
    assert "stack (stack)" not in text  # the folder says it all
    assert f"smt-hf experiment {HOSTILE}" not in text  # no recipe, so nothing makes it again


def test_what_others_wrote_is_shown_and_not_obeyed(html):
    assert HOSTILE not in html and HOSTILE in read(html).text


def test_the_style_knows_dark_pages_phones_and_paper():
    style = TEMPLATE.read_text(encoding="utf-8")
    for part in ("prefers-color-scheme: dark", "@media print", "@media (max-width", 'name="viewport"'):
        assert part in style


def test_bold_is_the_better_mean_and_nothing_when_they_read_the_same():
    def shown(smt, bptt, metric):
        return figures(Summary(8, "gru", smt, bptt, 1e-3, []), metric)

    rate = " <small>(0.001)</small>"
    assert shown([0.9], [0.8], "accuracy") == ("<strong>0.900</strong>", f"0.800{rate}")
    assert shown([2.5], [2.0], "bits per byte") == ("2.500", f"<strong>2.000</strong>{rate}")
    assert shown([0.9001], [0.9], "accuracy") == ("0.900", f"0.900{rate}")


def test_variants_have_a_column_where_there_are_any(tmp_path):
    changed = rows("gru", "smt", 2e-3, {64: 0.5}, variant="num-labels=4")
    with_them = page([(experiment(tmp_path / "a", [*STACK, *changed]), [])], {}, {})
    assert "num-labels=4" in read(with_them).text and "variant" in read(with_them).text
    without = read(page([(experiment(tmp_path / "b", STACK), [])], {}, {})).text
    assert "variant" not in without.split("</style>")[-1].split("Recurrent memories")[-1]


def test_a_cell_of_a_users_own_is_shown_by_its_class(tmp_path):
    one = rows("a.long.module:TheirCell", "smt", 2e-3, {64: 0.5})
    text = read(page([(experiment(tmp_path, one), [])], {}, {})).text
    assert text.count("TheirCell") == 2 + text.count("a.long.module:TheirCell")  # the summary and the table
    assert name_of(group_key(one[0])) == "TheirCell, SMT → DMT"
