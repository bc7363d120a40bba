"""Measures what a trained model does after 20,000 and after many more tokens; prints one JSON object.

    python studies/long_run.py runs/measured/text7-gru-smt --generate 1000000 > results/long_run-gru.json

Free-running from a cold start on the validation part of python-docs: loss by position, size of the memory.
Then its rows one after another, over and over, one token at a time: bytes of the state and of the process along
the way, and for every 100,000 tokens their loss and their time over that of the first. At last one call of
`generate` with a streamer: time and bytes for every 100,000 tokens.
"""

import argparse
import gc
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes
from smt_hf.data import load_data
from smt_hf.evaluation.free_running import token_losses
from smt_hf.runs.files import one_entry_a_line

HORIZON, STRETCH = 20_000, 100_000
PARTS = ((0, 1000), (1000, 2000), (2000, 5000), (5000, 10_000), (10_000, 15_000), (15_000, HORIZON))
MARKS = {10, 1000, 10_000, HORIZON, 50_000}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@torch.no_grad()
def read_on(
    model: Any, ids: torch.Tensor, labels: torch.Tensor, tokens: int, stretch: int = STRETCH
) -> dict[str, Any]:
    """Read ids (T,) over and over, `tokens` in all; of them nothing is kept but what is returned.

    Each whole stretch has bits_per_byte of labels (T,), and its seconds, also as a ratio to the first.
    """
    state, norms, watched = None, {}, {}
    stretches: list[dict[str, float]] = []
    loss, start = torch.zeros(()), time.perf_counter()
    for t in range(tokens):
        at = t % len(ids)
        out = model(ids[at].view(1, 1), cache=state)
        state = out.cache
        loss += F.cross_entropy(out.logits[0], labels[at : at + 1])
        read = t + 1
        if read % stretch == 0:
            seconds = time.perf_counter() - start
            first = stretches[0]["seconds"] if stretches else seconds
            bits = loss.item() / stretch / math.log(2)
            stretches.append({"bits_per_byte": bits, "seconds": seconds, "over_the_first": seconds / first})
        if read in MARKS or read % stretch == 0 or read == tokens:
            gc.collect()
            memory = state.layers[0].read()
            norms[read] = memory.square().mean().sqrt().item()
            watched[read] = {
                "state_bytes": memory.untyped_storage().nbytes(),
                "process_bytes": resident_bytes(),
            }
        if read % stretch == 0:
            loss, start = torch.zeros(()), time.perf_counter()
    return {"memory_rms": norms, "after_tokens": watched, "stretch": stretch, "stretches": stretches}


class Watch(BaseStreamer):
    """Takes the tokens of `generate` and keeps of each stretch its time, and the bytes of the process."""

    def __init__(self, stretch: int):
        self.stretch, self.count, self.start = stretch, -1, 0.0  # the prompt is put before the first token
        self.stretches: list[dict[str, float]] = []

    def put(self, value: torch.Tensor) -> None:
        self.count += 1
        if self.count == 0:
            self.start = time.perf_counter()
        elif self.count % self.stretch == 0:
            now = time.perf_counter()
            seconds = now - self.start
            first = self.stretches[0]["seconds"] if self.stretches else seconds
            self.stretches.append(
                {"seconds": seconds, "over_the_first": seconds / first, "process_bytes": resident_bytes()}
            )
            self.start = time.perf_counter()

    def end(self) -> None:
        pass


def generate_on(model: Any, start: torch.Tensor, tokens: int, stretch: int = STRETCH) -> dict[str, Any]:
    """One call of `generate` that samples `tokens` tokens after `start` (1, T), to a streamer."""
    model.generation_config.eos_token_id = None  # go on, whatever is said
    watch = Watch(stretch)
    torch.manual_seed(0)
    out = model.generate(
        start, max_new_tokens=tokens, do_sample=True, streamer=watch, return_dict_in_generate=True
    )
    state = out.cache.layers[0].read()
    return {
        "tokens": out.sequences.shape[1] - start.shape[1],
        "state_bytes": state.untyped_storage().nbytes(),
        "stretch": stretch,
        "stretches": watch.stretches,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", help="a trained model")
    parser.add_argument("--tokens", type=int, default=STRETCH, help="how many to read one at a time [100000]")
    parser.add_argument("--generate", type=int, default=STRETCH, help="how many in one call [100000]")
    args = parser.parse_args()
    for name, value in (("--tokens", args.tokens), ("--generate", args.generate)):
        if value < 1:
            parser.error(f"{name} is {value}; it must be at least 1.")
    model = AutoModelForCausalLM.from_pretrained(args.run).eval()
    x, y = load_data("python-docs", sequence_length=HORIZON).validation.blocks(HORIZON, 5)
    losses, _ = token_losses(model, x, y)
    result = {
        "run": Path(args.run).name,
        "rows": len(x),
        "finite": bool(losses.isfinite().all()),
        "bits_per_byte": {f"{a}-{b}": losses[:, a:b].mean().item() / math.log(2) for a, b in PARTS},
    }
    del losses
    result |= read_on(model, x.flatten(), y.flatten(), args.tokens)
    print(one_entry_a_line(result | {"generation": generate_on(model, x[:1, :64], args.generate)}), end="")


if __name__ == "__main__":
    main()
