"""What the serving engine costs beside the bare model: every figure is a ratio of two things timed in turn.

    python studies/serving_engine.py [--rounds 5] [--quick]

Model: the GRU of `smt-hf benchmark decode`, about 7 M parameters, float32.
"""

import argparse
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
    args = parser.parse_args()
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
            return NEW / seconds(
                lambda: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW)
            )

        print("64 streams over one:", ratio(args.rounds, lambda: rate(64), lambda: rate(1)))
        print(
            "engine over bare step, 64 rows:",
            ratio(args.rounds, lambda: rate(64), lambda: bare_steps(model, 64, NEW)),
        )
        print("one stream over generate:", ratio(args.rounds, lambda: rate(1), generate))
        print(
            "first token of a short prompt:",
            first_token_beside_others(engine, model, 40 if args.quick else 200),
        )
    print("first token of turn 6 over turn 1:", turn_six(model, 200 if args.quick else 2000))
    with tempfile.TemporaryDirectory() as folder:
        print("restoring:", restore_one_of(2_000 if args.quick else 100_000, model, Path(folder)))


if __name__ == "__main__":
    main()
