"""What a trained model does after 20,000 and after 100,000 tokens; prints one JSON object.

    python docs/long_run.py runs/measured/text7-gru-smt > docs/results/long_run-gru.json

Free-running from a cold start on the validation part of python-docs: loss by position, size of the memory,
then 100,000 tokens one at a time, with the bytes of the state and of the process along the way.
"""

import gc
import json
import math
import os
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes
from smt_hf.data import load_data
from smt_hf.evaluation.free_running import token_losses

HORIZON, LONG = 20_000, 100_000
PARTS = ((0, 1000), (1000, 2000), (2000, 5000), (5000, 10_000), (10_000, 15_000), (15_000, HORIZON))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@torch.no_grad()
def main(run: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(run).eval()
    x, y = load_data("python-docs", sequence_length=HORIZON).validation.blocks(HORIZON, 5)
    losses, _ = token_losses(model, x, y)
    result = {
        "run": Path(run).name,
        "rows": len(x),
        "finite": bool(losses.isfinite().all()),
        "bits_per_byte": {f"{a}-{b}": losses[:, a:b].mean().item() / math.log(2) for a, b in PARTS},
    }

    ids = x[:1].repeat(1, -(-LONG // HORIZON))
    state, norms = None, {}
    watched = {}
    for t in range(LONG):
        state = model(ids[:, t : t + 1], past_key_values=state).past_key_values
        if t + 1 in (10, 1000, 10_000, HORIZON, 50_000, LONG):
            gc.collect()
            memory = state.layers[0].read()
            norms[t + 1] = memory.square().mean().sqrt().item()
            watched[t + 1] = {
                "state_bytes": memory.untyped_storage().nbytes(),
                "process_bytes": resident_bytes(),
            }
    print(json.dumps(result | {"memory_rms": norms, "after_tokens": watched}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1])
