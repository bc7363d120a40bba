"""Tables between markers: what stands between two is made anew, and nothing else changes."""

import pytest

from smt_hf.reporting.markers import update, updated

TABLES = {"a": lambda: ["| 1 |"], "b c": lambda: ["| 2 |", "| 3 |"], "none": lambda: []}
PAGE = (
    "# Title\n\n<!-- table: a -->\nold\n\nolder\n<!-- end -->\ntext\n<!-- table: b c -->\n<!-- end -->\nend\n"
)


def test_only_what_stands_between_markers_changes(tmp_path):
    page, other = tmp_path / "a.md", tmp_path / "b.md"
    page.write_text(PAGE)
    other.write_text("no tables\n")
    assert update([page, other], TABLES) == [page]
    first = "<!-- table: a -->\n| 1 |\n<!-- end -->\n"
    second = "<!-- table: b c -->\n| 2 |\n| 3 |\n<!-- end -->\n"
    assert page.read_text() == f"# Title\n\n{first}text\n{second}end\n" and other.read_text() == "no tables\n"
    assert update([page, other], TABLES) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "<!-- table: x -->\n<!-- end -->\n",
            "a.md asks for the table 'x', which these .* give 3, among them a, b c, none",
        ),
        ("<!-- table: a -->\n", "a.md: the table 'a' has no line <!-- end --> after it"),
        ("<!-- table: a -->\n<!-- table: b c -->\n<!-- end -->\n", "'a' has no line <!-- end --> before"),
        ("text\n<!-- end -->\n", "a.md has a line <!-- end --> without a table before it"),
    ],
)
def test_a_marker_that_has_no_table_or_no_other_is_told_and_no_file_is_written(tmp_path, text, told):
    good, bad = tmp_path / "good.md", tmp_path / "a.md"
    good.write_text(PAGE)
    bad.write_text(text)
    with pytest.raises(ValueError, match=told):
        update([good, bad], TABLES)
    assert good.read_text() == PAGE and bad.read_text() == text


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.md is no file"):
        updated(tmp_path / "missing.md", TABLES)
