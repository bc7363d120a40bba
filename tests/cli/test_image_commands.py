"""pretrain and evaluate on a folder of images: bits per dimension, and a picture of what the model draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_commands import TINY, one_line

from smt_hf.cli import main

image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
LEVELS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of 4 × 4: a bright column on a dark ground, and noise."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 128, (4, 4)).astype(np.uint8)
        pixels[:, number % 4] = 255
        image_module.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def image_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "images"
    words = ["--dataset", str(folder), "--image-column", "image", "--grey-levels", str(LEVELS)]
    more = [
        "--max-steps",
        "6",
        "--rollout-length",
        "8",
        "--curriculum-start-length",
        "8",
        "--output-dir",
        str(run),
    ]
    assert main(["pretrain", *words, *TINY, *more]) == 0
    return run


def test_the_run_is_recorded_as_one_on_images_of_their_own_length(image_run, folder):
    record = json.loads((image_run / "run.json").read_text())
    assert (record["data_kind"], record["sequence_length"], record["bytes_per_token"]) == ("image", 16, 1.0)
    named = {"dataset": str(folder), "image_column": "image", "grey_levels": LEVELS}
    assert named.items() <= record["spec"].items()
    assert record["teacher"]["context_length"] == 16
    card = (image_run / "README.md").read_text()
    assert "bits per dimension" in card and "per byte" not in card and "<|image|>" in card


def test_evaluate_gives_bits_per_dimension_of_the_same_images(image_run, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(image_run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    final = json.loads((image_run / "run.json").read_text())["final"]
    assert result["bits_per_dimension"] == pytest.approx(final["loss"] / np.log(2), rel=1e-5)
    assert result["tokens"] == final["targets"] and result["tokens"] % 16 == 0
    assert main(["evaluate", str(image_run)]) == 0
    assert f"bits per dimension by horizon 0–16: {result['bits_per_dimension']:.3f}" in capsys.readouterr().out


def test_evaluate_draws_images(image_run, tmp_path):
    assert main(["evaluate", str(image_run), "--images", str(tmp_path / "drawn.png")]) == 0
    shown = np.asarray(image_module.open(tmp_path / "drawn.png"))
    assert set(np.unique(shown)) <= {0, 85, 170, 255, 128}, "four levels, and the gaps"


def test_compare_tabulates_an_image_run(image_run, capsys):
    assert main(["compare", str(image_run)]) == 0
    final = json.loads((image_run / "run.json").read_text())["final"]
    out = " ".join(capsys.readouterr().out.split())
    assert "bits per dimension" in out and f"{final['loss'] / np.log(2):.3f}" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--lengths", "8"], ["--lengths", "tasks"]),
        (["--dataset", "retrieval", "--images", "x.png"], ["--images", "'retrieval'"]),
        (["--dataset", "FOLDER", "--image-column", "image", "--grey-levels", "3"], ["not those", "FOLDER"]),
        (["--sequence-length", "17"], ["1 to 16", "it is 17"]),
    ],
)
def test_evaluate_refuses(image_run, folder, capfd, words, named):
    capfd.readouterr()
    own = [str(folder) if word == "FOLDER" else word for word in words]
    assert main(["evaluate", str(image_run), *own]) == 2
    line = one_line(capfd.readouterr().err)
    assert [text for text in named if text.replace("FOLDER", str(folder)) not in line] == [], line
