"""Images as pixel sequences: from scikit-learn's digits, and from tables and folders on disk."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from smt_hf.data import PixelSequences, data_kind, load_data, load_pixels

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")

image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
needs_sklearn = pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="needs scikit-learn")


def picture(number: int, size: tuple[int, int] = (3, 5)) -> np.ndarray:
    """Grey values 0 … 255 that differ from picture to picture; the first is black, the last white."""
    values = np.random.default_rng(number).integers(0, 256, size).astype(np.uint8)
    values[0, 0], values[-1, -1] = 0, 255
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty images as a folder of PNG files, the way `datasets` calls an imagefolder."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(30):
        image_module.fromarray(picture(number)).save(path / f"{number:02}.png")
    return path


def every_image(*splits: PixelSequences) -> list[list[int]]:
    return sorted(image.flatten().tolist() for split in splits for image in split.pixels)


def test_a_row_is_the_image_after_a_start_symbol_in_raster_order() -> None:
    pixels = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    images = PixelSequences(pixels, 12, "by hand")
    batch = images.__getitems__([1, -2])
    assert batch["input_ids"].tolist() == [[12, 6, 7, 8, 9, 10], [12, 0, 1, 2, 3, 4]]
    assert batch["shift_labels"].tolist() == [[6, 7, 8, 9, 10, 11], [0, 1, 2, 3, 4, 5]]
    assert batch["input_ids"].dtype == batch["shift_labels"].dtype == torch.int64
    assert images[1]["input_ids"].tolist() == batch["input_ids"][0].tolist()
    assert images.vocab_size == len(images.tokenizer()) == 14
    assert images.tokenizer().decode(batch["input_ids"][0]) == "<|image|> 6 7 8 9 10"
    first = images.at_length(4)
    assert first[0]["shift_labels"].tolist() == [0, 1, 2, 3] and first.image_shape == (2, 3)
    assert first.fingerprint != images.fingerprint


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_a_folder_of_images_is_quantised_and_split_without_loss_or_overlap(folder: Path, levels: int) -> None:
    train, validation = load_pixels(str(folder), grey_levels=levels, validation_fraction=0.3)
    expected = sorted([int(v) * levels // 256 for v in picture(n).flatten()] for n in range(30))
    assert every_image(train, validation) == expected
    assert 2 <= len(validation) <= 20, "about a third"
    assert train.pixels.max() == levels - 1 and train.pixels.min() == 0
    assert (train.image_shape, train.sequence_length) == ((3, 5), 15)


def test_tables_with_images_read_the_same_as_folders(folder: Path, tmp_path: Path) -> None:
    import datasets

    table = datasets.load_dataset(str(folder), split="train").rename_column("image", "drawing")
    (tmp_path / "table").mkdir()
    table.to_parquet(str(tmp_path / "table" / "images.parquet"))
    data = load_data(str(tmp_path / "table"), sequence_length=None, image_column="drawing", grey_levels=16)
    direct = load_data(str(folder), sequence_length=None, image_column="image", grey_levels=16)
    assert data.kind == direct.kind == "image"
    assert data.fingerprint == direct.fingerprint and data.validation.sequence_length == 15
    streamed, _ = load_pixels(
        str(tmp_path / "table"), image_column="drawing", grey_levels=16, streaming=True, max_bytes=6 * 15
    )
    assert len(streamed) + 1 <= 6


def test_colours_become_grey(tmp_path: Path) -> None:
    """By the weights of ITU-R 601, as Pillow converts them."""
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]):
        image_module.new("RGB", (2, 2), colour).save(tmp_path / f"{number}.png")
    greys = [image[0] for image in every_image(*load_pixels(str(tmp_path)))]
    assert greys == pytest.approx([0.114 * 255, 0.299 * 255, 0.587 * 255, 255], abs=1)


def test_repeated_images_count_once(tmp_path: Path) -> None:
    for number in range(6):
        image_module.fromarray(picture(number % 3)).save(tmp_path / f"{number}.png")
    assert sum(map(len, load_pixels(str(tmp_path)))) == 3


@needs_sklearn
def test_digits_are_all_there_in_seventeen_levels() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits", sequence_length=None)
    train, validation = data.train, data.validation
    assert isinstance(train, PixelSequences) and isinstance(validation, PixelSequences)
    expected = {tuple(image.flatten()) for image in load_digits().images.astype(int)}
    found = every_image(train, validation)
    assert {tuple(image) for image in found} == expected and len(found) == len(expected)
    assert (train.grey_levels, train.vocab_size, train.sequence_length) == (17, 19, 64)
    assert len(validation) / len(found) == pytest.approx(0.05, abs=0.03)
    coarse, _ = load_pixels("digits", grey_levels=2)
    assert set(np.unique(coarse.pixels)) == {0, 1}


def test_bits_per_dimension_of_uniform_guessing_are_the_bits_of_a_level() -> None:
    """All pixels count, the first one too: log2 L for a model that knows nothing."""
    from smt_hf import SMTConfig, SMTForCausalLM
    from smt_hf.evaluation.free_running import evaluate_lengths
    from smt_hf.evaluation.metrics import report

    images = PixelSequences(np.zeros((3, 2, 2), np.uint8), 6, "by hand")  # 8 ids with START and <|pad|>
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    model = SMTForCausalLM(SMTConfig(vocab_size=images.vocab_size, **sizes))  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.lm_head.weight)
    metrics = evaluate_lengths(model, images, [4])[4]
    assert metrics["targets"] == 12
    assert report(metrics, "image", 1.0)["bits_per_dimension"] == pytest.approx(math.log2(8))


def test_data_are_images_only_when_asked_for() -> None:
    assert data_kind("digits") == data_kind("ylecun/mnist", "image") == "image"
    assert data_kind("ylecun/mnist") == data_kind("python-docs") == "text"
    assert data_kind("recall:num_keys=16") == "task"


def test_text_and_tasks_need_a_length() -> None:
    with pytest.raises(ValueError, match="'parity' needs a sequence_length; only images have one of their own"):
        load_data("parity", sequence_length=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 16}, "must be 1 to 15, the pixels of an image, but it is 16"),
        ({"grey_levels": 1}, "must be 2 to 256, but it is 1"),
        ({"grey_levels": 257}, "must be 2 to 256, but it is 257"),
        ({"image_column": "picture"}, "has no column 'picture'; choose image_column among 'image'"),
        ({"split": "test"}, "could not be read"),
        ({"validation_fraction": 0.999999}, "all 30 images .* fall to validation by its fraction 0.99"),
        ({"validation_fraction": float("nan")}, "between 0 and 1, but it is nan"),
        ({"max_bytes": 0}, "at least 1 or None, but it is 0"),
        ({"max_bytes": 15}, "has 1 different images, but training and validation need 2"),
    ],
)
def test_images_that_cannot_be_are_refused(folder: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_pixels(str(folder), **arguments)


def test_images_of_different_sizes_are_refused(folder: Path) -> None:
    image_module.fromarray(picture(99, (4, 5))).save(folder / "29a.png")
    with pytest.raises(ValueError, match=r"image 30 of .* has 4 × 5 pixels but the first has 3 × 5; resize"):
        load_pixels(str(folder))


def test_a_column_that_holds_no_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("word\none\ntwo\n")
    with pytest.raises(ValueError, match=r"column 'word' .* holds str, not images"):
        load_pixels(str(tmp_path / "words.csv"), image_column="word")


def test_images_read_as_text_say_how_to_read_them_as_images(folder: Path, tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "images.parquet"
    datasets.load_dataset(str(folder), split="train").to_parquet(str(path))
    with pytest.raises(
        ValueError, match="no column 'text'; choose text_column among 'image', or image_column for 'image'"
    ):
        load_data(str(path), sequence_length=8)


def test_without_scikit_learn_there_are_no_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"'digits' come with scikit-learn; install .*smt-hf\[experiments\]"):
        load_data("digits", sequence_length=None)
