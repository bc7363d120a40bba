"""Put a finished run into the package: RUN. The weights become bfloat16, which halves the file.

What it needs on another machine goes along: config, tokenizer, record and card. Code stays behind, since the
package has it.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from smt_hf.example import FOLDER

KEPT = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "run.json",
    "README.md",
)


def main(run: str) -> None:
    source = Path(run)
    for name in KEPT:
        shutil.copyfile(source / name, FOLDER / name)
    weights = load_file(source / "model.safetensors")
    halved = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    # config.json says float32, so `from_pretrained` computes in it.
    (FOLDER / "model.safetensors").unlink(missing_ok=True)
    save_file(halved, FOLDER / "model.safetensors", metadata={"format": "pt"})
    print(f"{sum(path.stat().st_size for path in FOLDER.glob('*')) / 2**20:.2f} MiB in {FOLDER}")


if __name__ == "__main__":
    main(*sys.argv[1:])
