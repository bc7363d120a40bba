"""From image files to grey values: scaled, laid over white, or refused by name."""

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from smt_hf.data import PixelSequences, load_data, load_evaluation_data, load_pixels

# datasets 4.0 leaves the file of a table open.
pytestmark = pytest.mark.filterwarnings("ignore:.*_io.FileIO:pytest.PytestUnraisableExceptionWarning")

image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")


def save(folder: Path, **images: object) -> str:
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        if isinstance(image, np.ndarray):
            image = image_module.fromarray(image)
        image.save(folder / f"{name}.png")  # type: ignore[attr-defined]
    return str(folder)


def grey(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def values(name: str) -> list[list[int]]:
    """All images of a folder, in order."""
    data = load_evaluation_data(name, sequence_length=None, image_column="image").validation
    assert isinstance(data, PixelSequences)
    return [image.flatten().tolist() for image in data.pixels]


def test_sixteen_bits_are_scaled_instead_of_clipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wide = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    folder = save(tmp_path / "x", a=wide, b=wide[:, ::-1].copy())
    with caplog.at_level(logging.WARNING, "smt_hf"):
        assert values(folder) == [[0, 0, 1, 128, 255], [255, 128, 1, 0, 0]]
    assert ["16 bits" in message for message in caplog.messages] == [True], "said once"


def test_what_is_transparent_is_laid_over_white(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [100, 100, 100, 255], [0, 0, 0, 51]]], np.uint8)
    opaque = pixels.copy()
    opaque[..., 3] = 255
    la = np.stack([pixels[..., 0], pixels[..., 3]], axis=-1)
    palette = image_module.fromarray(grey(0, 1, 1, 0), mode="L").convert("P")
    palette.putpalette([10, 10, 10, 200, 200, 200])
    folder = save(tmp_path / "x", a=pixels, b=pixels, c=opaque, d=la)
    palette.save(tmp_path / "x" / "e.png", transparency=0)
    with caplog.at_level(logging.WARNING, "smt_hf"):
        found = values(folder)
    assert found[0] == found[1] == found[3] == [255, 0, 100, 204]
    assert found[2] == [0, 0, 100, 0]
    assert found[4] == [255, 200, 200, 255]
    assert ["transparent" in message for message in caplog.messages] == [True], "said once"


def test_an_opaque_image_with_an_alpha_channel_is_nothing_to_speak_of(tmp_path: Path, caplog) -> None:
    opaque = np.full((1, 4, 4), 255, np.uint8)
    assert values(save(tmp_path / "x", a=opaque)) == [[255] * 4] and not caplog.messages


def png(width: int, height: int) -> bytes:
    """The head of an image of any size, in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "empty", "no image", "bomb", "large", "32 bits", "float"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, damage: str, streaming: bool) -> None:
    rng = np.random.default_rng(0)
    whole = {f"a{i}": rng.integers(0, 256, (40, 40)).astype(np.uint8) for i in range(3)}
    folder = save(tmp_path / "x", **whole)
    path = tmp_path / "x" / "b.png"
    if damage == "truncated":
        path.write_bytes((tmp_path / "x" / "a0.png").read_bytes()[:900])
    elif damage == "32 bits":
        path = path.with_suffix(".tiff")
        image_module.fromarray(np.zeros((40, 40), np.int32)).save(path)
    elif damage == "float":
        path = path.with_suffix(".tiff")
        image_module.fromarray(np.zeros((40, 40), np.float32)).save(path)
    else:
        content = {
            "empty": b"",
            "no image": b"hello",
            "bomb": png(50_000, 50_000),
            "large": png(10_000, 10_000),
        }
        path.write_bytes(content[damage])
    with pytest.raises(ValueError) as error:
        load_pixels(folder, streaming=streaming)
    sentence = str(error.value)
    assert str(path) in sentence and "\n" not in sentence and "object at 0x" not in sentence


@pytest.mark.parametrize("stray", ["captions.txt", "notes.log"])
def test_files_beside_images_do_not_decide_how_they_are_read(tmp_path: Path, stray: str, caplog) -> None:
    """`datasets` takes a folder for what most of its files are."""
    folder = save(tmp_path / "x", a=grey(1, 2), b=grey(3, 4))
    for number in range(5):
        (tmp_path / "x" / f"{number}-{stray}").write_text("x")
    assert values(folder) == [[1, 2], [3, 4]]
    assert "leaving out 5 other files" in caplog.text
    (tmp_path / "x" / "metadata.csv").write_text("file_name,label\na.png,1\nb.png,2\n")
    assert values(folder) == [[1, 2], [3, 4]]
    (tmp_path / "x" / "others.csv").write_text("image\n1\n")
    with pytest.raises(ValueError, match=r"2 images .* and 1 table"):
        values(folder)


def test_images_have_a_validation_split_of_their_own_too(tmp_path: Path) -> None:
    for split, shown in {"train": [1, 2, 3], "validation": [3, 4], "test": [5]}.items():
        (tmp_path / "x").mkdir(exist_ok=True)
        save(tmp_path / "x" / split, **{f"i{value}": grey(value, 0) for value in shown})
    folder = str(tmp_path / "x")
    data = load_data(folder, sequence_length=None, image_column="image")
    assert isinstance(data.train, PixelSequences) and isinstance(data.validation, PixelSequences)
    assert data.train.pixels[:, 0, 0].tolist() == [1, 2]
    assert data.validation.pixels[:, 0, 0].tolist() == [3, 4] and values(folder) == [[3, 0], [4, 0]]
    _, tested = load_pixels(folder, validation_split="test")
    assert tested.pixels[:, 0, 0].tolist() == [5]
    whole = load_evaluation_data(folder, sequence_length=None, image_column="image", split="train").validation
    assert len(whole) == 3
    with pytest.raises(ValueError, match=r"validation_split 'dev' .* it has test, train, validation"):
        load_pixels(folder, validation_split="dev")


@pytest.mark.parametrize("name", ["a.txt", "folder"])
def test_what_holds_no_images_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=rf"{name}' holds no images; .*\.png"):
        load_pixels(str(tmp_path / name))


def test_one_image_file_is_too_few_to_split(tmp_path: Path) -> None:
    folder = save(tmp_path / "x", a=grey(1, 2))
    with pytest.raises(ValueError, match="1 different images"):
        load_pixels(f"{folder}/a.png")
    assert values(f"{folder}/a.png") == [[1, 2]]


def test_digits_have_no_splits() -> None:
    for arguments in ({"split": "test"}, {"validation_split": "test"}):
        with pytest.raises(ValueError, match="'digits' has no splits"):
            load_pixels("digits", **arguments)  # type: ignore[arg-type]
