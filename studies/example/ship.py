"""Put a finished run into the package: RUN. The weights become bfloat16, which halves the file.

What it needs on another machine goes along: config, tokenizer, record and card. Code stays behind, since the
package has it.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from smt_hf.example import FOLDER
from smt_hf.hub.card import write_card
from smt_hf.runs.record import RunRecord

CARDS = Path(__file__).parents[2] / "model_cards"
DATA = """
## Data and licence

The text is the source of Python 3.11's documentation (Debian's package `python3.11-doc`, without the
changelog), which the Python Software Foundation publishes under the PSF License Version 2; examples in it are
also under the Zero Clause BSD License. The model was trained on 460 of its files and is judged on 36 others.
The weights are under the Apache License 2.0, as this package is. They are stored as bfloat16, and the model
computes in float32.
"""
USE = """\
It comes with smt-hf:

```python
from smt_hf import load_example

model, tokenizer = load_example()
```
"""
LM_EVAL = """
lm-eval {lm_eval} gives {bits_per_byte:.3f} bits per byte on {files} whole files. It reads each from an empty
memory to its end; the longest has {longest_file:,} bytes. These are the files that the split holds out of
version {package} of the package. The split goes by the hash of a text, so a file that was
edited since may have been trained on.
"""
KEPT = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "run.json",
    "README.md",
)


def of_the_package(card: str) -> str:
    """The card of the run as that of the package: loaded from there, with the licence of its data."""
    before, use = card.split("With smt-hf installed:\n")
    _, after = use.split("\nGenerate, ", 1)
    judged = LM_EVAL.format(**json.loads(Path(__file__).with_name("lm_eval.json").read_text("utf-8")))
    card = f"{before}{USE}\nGenerate, {after}"
    for heading, text in (("How big its state is", judged), ("Citation", DATA)):
        card = card.replace(f"\n## {heading}\n", f"{text}\n## {heading}\n")
    return card


def main(run: str) -> None:
    source = Path(run)
    for name in KEPT:
        shutil.copyfile(source / name, FOLDER / name)
    write_card(source, RunRecord.of_finished(source))
    card = of_the_package((source / "README.md").read_text("utf-8"))
    for path in (FOLDER / "README.md", CARDS / "example-gru.md"):
        path.write_text(card, encoding="utf-8")
    weights = load_file(source / "model.safetensors")
    halved = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    # config.json says float32, so `from_pretrained` computes in it.
    (FOLDER / "model.safetensors").unlink(missing_ok=True)
    save_file(halved, FOLDER / "model.safetensors", metadata={"format": "pt"})
    (FOLDER / "model.safetensors").chmod(0o644)
    print(f"{sum(path.stat().st_size for path in FOLDER.glob('*')) / 2**20:.2f} MiB in {FOLDER}")


if __name__ == "__main__":
    main(*sys.argv[1:])
