"""smt-hf report: the same tables and pictures from a live and a packed study, and pages that are made anew."""

from pathlib import Path

import pytest
from handmade import PROBES, RECORD, SMT_LINES, STACK, experiment

from smt_hf.cli import main


@pytest.fixture
def live(tmp_path) -> Path:
    return experiment(tmp_path / "live", STACK, record=RECORD, lines=SMT_LINES, probes=PROBES).folder


def one_line(text: str) -> str:
    assert text.count("\n") == 1
    return text


def told(folder: Path, capsys) -> tuple[str, set[str]]:
    assert main(["report", str(folder)]) == 0
    printed = capsys.readouterr().out.replace(str(folder), "")
    return printed, {path.name for path in folder.glob("*.png")}


def test_a_packed_study_gives_the_tables_and_pictures_of_the_live_one(live, tmp_path, capsys):
    assert main(["report", str(live), "--pack", str(tmp_path / "new" / "packed")]) == 0
    assert "8 runs in" in capsys.readouterr().out
    assert told(tmp_path / "new" / "packed", capsys) == told(live, capsys)
    assert (tmp_path / "new" / "packed" / "stack.png").read_bytes() == (live / "stack.png").read_bytes()


def test_pages_are_made_anew_from_the_studies_in_a_folder(live, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: runs live -->\n<!-- end -->\nb\n")
    assert main(["report", str(tmp_path), "--update", str(page)]) == 0
    assert "1 of 1 files changed" in capsys.readouterr().out
    lines = page.read_text().splitlines()
    assert lines[0] == "a" and lines[-1] == "b" and "| gru | SMT → DMT | 2 | 0.980±0.010 |" in page.read_text()
    assert main(["report", str(tmp_path), "--update", str(page)]) == 0
    assert "0 of 1 files changed" in capsys.readouterr().out
    assert not list(live.glob("*.png")) and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--pack", "{live}"], "exists; name a new folder"),
        (["--pack", "{new}", "--update", "{page}"], "--pack and --update are two tasks"),
        (["--update", "{page}"], "asks for the table 'no such', which these results do not give"),
        (["--update", "{new}"], "is no file"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(live, tmp_path, capfd, words, part):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: no such -->\n<!-- end -->\n")
    places = {"live": live, "new": tmp_path / "new", "page": page}
    assert main(["report", str(live), *(word.format(**places) for word in words)]) == 2
    assert part in one_line(capfd.readouterr().err)
    assert page.read_text() == "<!-- table: no such -->\n<!-- end -->\n" and not (tmp_path / "new").exists()


def test_only_one_study_is_packed_at_a_time(live, tmp_path, capfd):
    experiment(tmp_path / "other", STACK, record=RECORD, lines=SMT_LINES)
    assert main(["report", str(tmp_path), "--pack", str(tmp_path / "new")]) == 2
    assert "holds 2; name the folder of one" in one_line(capfd.readouterr().err)


def test_its_own_page_and_pictures_are_made_anew_and_no_other_file_of_their_names(live, capfd):
    for _ in range(2):
        assert main(["report", str(live)]) == 0
    for path in (live / "report.html", live / "stack.png"):
        ours = path.read_bytes()
        path.write_bytes(b"mine")
        capfd.readouterr()
        assert main(["report", str(live)]) == 2
        assert str(path) in one_line(capfd.readouterr().err)
        assert path.read_bytes() == b"mine"
        path.write_bytes(ours)
    assert not list(live.glob(".*"))


def test_names_are_no_markup(live, capsys):
    folder = live.rename(live.with_name("q[∕z] a[bold]b :smile:"))
    assert main(["report", str(folder)]) == 0
    assert folder.name in capsys.readouterr().out
