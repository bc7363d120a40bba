"""Images drawn through `generate`: every pixel from the model's own distribution, the given ones kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.data import PixelSequences
from smt_hf.evaluation.images import GAP, GAP_LEVEL, SHOWN_SIZE, draw_images, generate_pixels, save_grid

image_module: Any = pytest.importorskip("PIL.Image", reason="needs Pillow")
LEVELS = 5
PIXELS = np.random.default_rng(0).integers(0, LEVELS, (10, 2, 3)).astype(np.uint8)
IMAGES = PixelSequences(PIXELS, LEVELS, "by hand")


def tiny_model(favourite: int | None = None) -> SMTForCausalLM:
    """Random, or all but certain of the token `favourite`."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_memory_tokens": 2, "num_readout_layers": 1}
    model = SMTForCausalLM(SMTConfig(vocab_size=LEVELS + 2, **sizes)).eval()  # type: ignore[arg-type]
    if favourite is not None:
        forward = model.forward

        def certain(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            output.logits[..., favourite] += 50
            return output

        model.forward = certain
    return model


def test_given_pixels_are_kept_and_the_rest_is_drawn_pixel_by_pixel() -> None:
    """Beside a loop that reads the whole image so far again for every pixel."""
    model = tiny_model()
    given = torch.from_numpy(PIXELS.reshape(10, -1)[:, :3].astype(np.int64))
    drawn = generate_pixels(model, IMAGES, given, seed=3)
    assert drawn.shape == (10, 2, 3)
    sequence = torch.cat([torch.full((10, 1), LEVELS), given], dim=1)
    torch.manual_seed(3)
    with torch.no_grad():
        for _ in range(3):
            logits = model(sequence, use_cache=False).logits[:, -1].float()
            logits[:, LEVELS:] = -torch.inf
            sequence = torch.cat([sequence, torch.multinomial(logits.softmax(-1), 1)], dim=1)
    assert drawn.reshape(10, -1).tolist() == sequence[:, 1:].tolist()


@pytest.mark.parametrize("special", [LEVELS, LEVELS + 1])
def test_symbols_that_are_no_grey_level_are_never_drawn(special: int) -> None:
    drawn = generate_pixels(tiny_model(favourite=special), IMAGES, torch.empty(4, 0, dtype=torch.long))
    assert drawn.shape == (4, 2, 3) and drawn.min() >= 0 and drawn.max() < LEVELS


def test_drawing_repeats_by_seed_and_leaves_the_generator_alone() -> None:
    model, nothing = tiny_model(), torch.empty(4, 0, dtype=torch.long)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = generate_pixels(model, IMAGES, nothing)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(10)
    assert (generate_pixels(model, IMAGES, nothing) == first).all()
    assert (generate_pixels(model, IMAGES, nothing, seed=1) != first).any()


def test_the_grid_shows_every_pixel_in_its_place(tmp_path: Path) -> None:
    rows = [PIXELS[:2].astype(np.int64), PIXELS[2:5].astype(np.int64)]
    save_grid(rows, LEVELS, tmp_path / "deep" / "grid.png")
    shown = np.asarray(image_module.open(tmp_path / "deep" / "grid.png"))
    zoom = SHOWN_SIZE // 3
    assert shown.shape == (2 * (2 * zoom + GAP) + GAP, 3 * (3 * zoom + GAP) + GAP)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            for (y, x), level in np.ndenumerate(image):
                top = GAP + i * (2 * zoom + GAP) + y * zoom
                left = GAP + j * (3 * zoom + GAP) + x * zoom
                part = shown[top : top + zoom, left : left + zoom]
                assert (part == level * 255 // (LEVELS - 1)).all()
    assert (shown[:GAP] == GAP_LEVEL).all() and (shown[2 * zoom + GAP :, -3 * zoom - GAP :].min() >= 0)
    assert (shown[GAP : GAP + 2 * zoom, -3 * zoom - GAP :] == GAP_LEVEL).all(), "no image there"


def test_the_picture_has_drawn_images_real_ones_and_completed_halves(tmp_path: Path) -> None:
    """A model that draws nothing but white: three rows that can be told apart."""
    draw_images(tiny_model(favourite=LEVELS - 1), IMAGES.at_length(2), tmp_path / "grid.png")
    shown = np.asarray(image_module.open(tmp_path / "grid.png"))
    zoom = SHOWN_SIZE // 3
    images = [
        shown[top : top + 2 * zoom : zoom, left : left + 3 * zoom : zoom]
        for top in range(GAP, len(shown), 2 * zoom + GAP)
        for left in range(GAP, shown.shape[1], 3 * zoom + GAP)
    ]
    real = (PIXELS[:8].astype(int) * 255 // (LEVELS - 1)).tolist()
    assert len(images) == 3 * 8
    assert all((image == 255).all() for image in images[:8])
    assert [image.tolist() for image in images[8:16]] == real
    assert [image.tolist() for image in images[16:]] == [[upper, [255] * 3] for upper, _ in real]
