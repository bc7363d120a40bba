"""Images that a model draws, from nothing or from their upper part, and a grid of them as a PNG file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

COLUMNS = 8
SEED = 0
# A digit of 8 × 8 is shown as 40 × 40; larger images are left as they are.
SHOWN_SIZE, GAP, GAP_LEVEL = 40, 2, 128


@torch.no_grad()
def generate_pixels(model: Any, dataset: Any, given: torch.Tensor, seed: int = SEED) -> np.ndarray:
    """Complete images by `model.generate`, sampling pixel after pixel from the model's own distribution.

    dataset: `PixelSequences` that the model was trained on; says the shape and the symbols.
    given: the first n pixels of each image, grey levels (B, n); n = 0 draws from nothing.
    Returns grey levels (B, H, W) int64; the given pixels are kept. A seed gives the same images every time,
    and the global generator is left as it was.
    """
    height, width = dataset.image_shape
    levels = dataset.grey_levels
    start = torch.full((len(given), 1), levels)
    prompt = torch.cat([start, given], dim=1).to(model.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        output = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=height * width - given.shape[1],
            do_sample=True,
            top_k=0,
            suppress_tokens=[levels, levels + 1],  # no grey levels: START and <|pad|>
            eos_token_id=None,
            pad_token_id=levels + 1,
        )
    return output[:, 1:].reshape(-1, height, width).cpu().numpy()


def sample_images(model: Any, dataset: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Images drawn from nothing; images of `dataset`; these completed from their first half, and its pixels.

    Grey levels (n, H, W) each, n at most `COLUMNS`.
    """
    images = dataset.at_length(dataset.pixels[0].size)
    rows = images.__getitems__(range(min(COLUMNS, len(images))))["shift_labels"]
    half = rows.shape[1] // 2
    nothing = generate_pixels(model, dataset, rows[:, :0])
    completed = generate_pixels(model, dataset, rows[:, :half])
    return nothing, rows.view(-1, *dataset.image_shape).numpy(), completed, half


def draw_images(model: Any, dataset: Any, path: Path) -> None:
    """Write a grid of three rows: drawn from nothing; images of `dataset`; their upper halves completed.

    Raises ValueError where Pillow is missing.
    """
    *rows, _ = sample_images(model, dataset)
    save_grid(rows, dataset.grey_levels, path)


def save_grid(rows: list[np.ndarray], grey_levels: int, path: Path) -> None:
    """Write rows of images, each (n, H, W) of grey levels 0 … `grey_levels` - 1, as one PNG file.

    Black is 0 and white the highest level. Raises ValueError where Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError("images need Pillow; install it with pip install 'smt-hf[experiments]'.") from error
    count, (height, width) = max(map(len, rows)), rows[0].shape[1:]
    zoom = max(1, SHOWN_SIZE // max(height, width))
    down, right = height * zoom + GAP, width * zoom + GAP
    grid = np.full((GAP + down * len(rows), GAP + right * count), GAP_LEVEL, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            shown = np.kron(image * 255 // (grey_levels - 1), np.ones((zoom, zoom), np.int64))
            y, x = GAP + i * down, GAP + j * right
            grid[y : y + height * zoom, x : x + width * zoom] = shown
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # whole or absent
    Image.fromarray(grid).save(part, format="PNG")
    part.replace(path)
