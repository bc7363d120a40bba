"""What the serving engine costs beside the bare model: every figure is a ratio of two things timed in turn.

    python studies/serving_engine.py [--rounds 5] [--quick] [--output results/trials-serving.json]

Model: the GRU of `smt-hf benchmark decode`, about 7 M parameters, float32.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GenerationConfig

from smt_hf.benchmark.models import build_model
from smt_hf.models.prepacked_linear import prepacked_weights
from smt_hf.serving.engine import Engine
from smt_hf.serving.state_store import Conversations
from smt_hf.serving.stores import open_store

NEW = 200


def prompts(rows: int, length: int = 16) -> list[list[int]]:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(0)).tolist()


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(rounds: int, above: Callable[[], float], below: Callable[[], float]) -> str:
    above(), below()
    found = [above() / below() for _ in range(rounds)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def memory() -> int:
    """Bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(model, few: int, many: int) -> str:
    """Bytes of the process after many requests over those after few, with a store of states.

    oneDNN keeps a product for each number of rows that it has met: the first thousands of requests cost room.
    """
    short = GenerationConfig(max_new_tokens=2, do_sample=True)
    with Engine(model, store=open_store("memory", 2**22)) as engine:

        def ask(count: int) -> int:
            for first in range(0, count, 50):
                engine.generate([[one % 250, one // 250 % 250, 7] for one in range(first, first + 50)], short)
            return memory()

        gc.collect()
        gc.freeze()  # as `smt-hf serve` does
        before, after, later = ask(few), ask(many), ask(many)
        return f"{after / before:.2f}; after twice as many over that: {later / after:.3f}"


@torch.no_grad()
def bare_steps(model, rows: int, steps: int) -> float:
    """Tokens a second of the batched step alone, with the most probable token taken each time."""
    memory, tokens = model.model.start_memory(rows).contiguous(), torch.zeros(rows, dtype=torch.long)
    with prepacked_weights(model):
        began = time.perf_counter()
        for _ in range(steps):
            memory, logits = model._step(memory, tokens)
            tokens = logits.argmax(-1)
            tokens.tolist()
    return rows * steps / (time.perf_counter() - began)


def first_token_beside_others(engine: Engine, model, samples: int) -> str:
    """Steps of the batch until the first token of a short prompt, while 32 stream and one reads 100,000."""
    endless = GenerationConfig(max_new_tokens=10**6, do_sample=False)
    streams = [engine.submit(one, endless) for one in prompts(32)]
    for stream in streams:
        next(iter(stream))
    step = 33 / bare_steps(model, 33, 100)
    long = engine.submit([1] * 100_000, GenerationConfig(max_new_tokens=1))
    waits = []
    for number in range(samples):
        began = time.perf_counter()
        next(iter(engine.submit([number % 200] * 10, GenerationConfig(max_new_tokens=1))))
        waits.append((time.perf_counter() - began) / step)
    reading = long.finish_reason is None
    for stream in (*streams, long):
        stream.cancel()
    waits.sort()
    p50, p95 = waits[len(waits) // 2], waits[int(len(waits) * 0.95)]
    return f"p50 {p50:.1f}, p95 {p95:.1f} steps (the long prompt was still being read: {reading})"


def restore_one_of(count: int, model, folder: Path) -> str:
    with Engine(model, max_batch=1) as engine:
        start = engine.start
    kept = Conversations(open_store(f"sqlite:///{folder}/states.db"), model, start)
    rows = torch.randint(0, 256, (count, 300), generator=torch.Generator().manual_seed(1)).tolist()
    began = time.perf_counter()
    for first in range(0, count, 500):
        for ids in rows[first : first + 500]:
            kept.keep(ids, start)
        while kept.pending:
            time.sleep(0.001)
    wrote = time.perf_counter() - began
    times = []
    for place in torch.randperm(count)[:1000].tolist():
        ids = [*rows[place], 1, 2, 3]
        began = time.perf_counter()
        found = kept.longest(ids)
        times.append(time.perf_counter() - began)
        assert found is not None and found[0] == 300
    times.sort()
    kept.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return (
        f"p50 {1e3 * times[500]:.2f} ms, p95 {1e3 * times[950]:.2f} ms of {count:,} states "
        f"({count / wrote:,.0f} kept a second, {size / count:,.0f} bytes each in the file)"
    )


def turn_six(model, tokens: int) -> str:
    """Seconds to the first token of the sixth turn over those of the first, `tokens` new tokens a turn."""
    one = GenerationConfig(max_new_tokens=8, do_sample=False)
    with Engine(model, store=open_store("memory")) as engine:
        ids, times = [], []
        for turn in range(6):
            ids = ids + prompts(1, tokens)[0][: tokens - turn]
            began = time.perf_counter()
            stream = iter(engine.submit(ids, one))
            answer = [next(stream).id]
            times.append(time.perf_counter() - began)
            ids += answer + [token.id for token in stream]
    return f"{times[5] / times[0]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, str]] = []

    def tell(what: str, bar: str, found: str) -> None:
        print(f"{what}: {found}", flush=True)
        rows.append({"what": what, "asked": bar, "found": found})

    model = build_model("smt-gru", 7_000_000).eval()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    greedy = GenerationConfig(max_new_tokens=NEW, do_sample=False)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {torch.get_num_threads()} threads")
    with Engine(model) as engine:

        def rate(rows: int) -> float:
            given = prompts(rows)
            return rows * NEW / seconds(lambda: engine.generate(given, greedy))

        def generate() -> float:
            ids = torch.tensor(prompts(1))
            mask = torch.ones_like(ids)
            return NEW / seconds(lambda: model.generate(ids, attention_mask=mask, max_new_tokens=NEW))

        def bare() -> float:
            return bare_steps(model, 64, NEW)

        tell(
            "64 streams over one, tokens a second", "≥ 8", ratio(args.rounds, lambda: rate(64), lambda: rate(1))
        )
        tell("the engine over the bare step, 64 rows", "≥ 0.8", ratio(args.rounds, lambda: rate(64), bare))
        tell("one stream over `generate`", "≥ 0.9", ratio(args.rounds, lambda: rate(1), generate))
        waits = first_token_beside_others(engine, model, 40 if args.quick else 200)
        tell(
            "first token of a short prompt, while 32 stream and one reads 100,000 tokens",
            "p95 ≤ 10 steps",
            waits,
        )
    turns = turn_six(model, 200 if args.quick else 2000)
    tell("first token of turn 6 over turn 1, 2,000 tokens a turn", "≤ 1.3", turns)
    grown = growth(model, 100, 500 if args.quick else 10_000)
    tell("memory of the process after 10,000 requests over after 100", "≤ 1.02", grown)
    with tempfile.TemporaryDirectory() as folder:
        found = restore_one_of(2_000 if args.quick else 100_000, model, Path(folder))
    tell("restoring one of 100,000 states from SQLite", "p95 ≤ 5 ms", found)
    if args.output:
        args.output.write_text(
            json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
