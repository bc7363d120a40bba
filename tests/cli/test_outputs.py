"""What a command writes never replaces a file of the user's, and is whole or absent."""

from pathlib import Path
from typing import Any

import pytest
from tiny_commands import TINY, one_line, write_corpus

from smt_hf.cli import main

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    corpus = write_corpus(folder / "lines.txt")
    words = [*TINY, "--max-steps", "2", "--checkpoint-every", "0", "--dataset", corpus]
    assert main(["pretrain", *map(str, words), "--output-dir", str(folder / "one")]) == 0
    return folder / "one"


def refused(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    return one_line(capfd.readouterr().err)


def words_of(command: str, run: Path, target: object) -> list[Any]:
    return {
        "evaluate": ["evaluate", run, "--images", target],
        "compare": ["compare", run, "--plot", target],
        "benchmark": ["benchmark", "decode", "--output", target],
    }[command]


@pytest.mark.parametrize("command", ["evaluate", "compare", "benchmark"])
def test_a_file_that_exists_is_refused_and_left_alone(command, run, capfd):
    weights = run / "model.safetensors"
    before = weights.read_bytes()
    line = refused(capfd, *words_of(command, run, weights))
    assert str(weights) in line and "exists" in line
    assert weights.read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "compare", "benchmark"])
def test_a_broken_link_and_a_path_below_a_file_are_refused_before_any_work(command, run, tmp_path, capfd):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert "exists" in refused(capfd, *words_of(command, run, tmp_path / "link"))
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in refused(capfd, *words_of(command, run, tmp_path / "file" / "new.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_plot_that_cannot_be_drawn_leaves_nothing(run, tmp_path, capfd):
    assert "xyz" in refused(capfd, "compare", run, "--plot", tmp_path / "curves.xyz")
    assert list(tmp_path.iterdir()) == []
    assert main(["compare", str(run), "--plot", str(tmp_path / "deep" / "curves.png")]) == 0
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["curves.png"]
