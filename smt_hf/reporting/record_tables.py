"""Markdown tables of stored benchmarks, one JSON file each or more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .formats import Rows, Table, markdown
from .study import read_record, tables_of_records


def record_tables(folder: Path) -> dict[str, Callable[[], Table]]:
    """Name → what makes the table out of files in `folder`, as the functions below say."""
    found = tables_of_records(
        folder,
        {
            "decode": ("benchmark-decode", decode),
            "decode-16k": ("benchmark-decode-16k", decode_far),
            "speed": ("benchmark-decode", speed),
            "prefill": ("benchmark-prefill", prefill),
            "train": ("benchmark-train", lambda rows: steps(rows, "context")),
            "dmt": ("benchmark-dmt", lambda rows: steps(rows, "rollout")),
            "serve": ("benchmark-serve", serve),
            "serve-readme": ("benchmark-serve", serve_shown),
            "serve-engine": ("trials-serving", serve_engine),
        },
    )

    def rows(file: str) -> Rows:
        return read_record(folder, file)["rows"]

    compiled = [f"benchmark-compiled-{name}" for name in COMPILED]
    if all((folder / f"{file}.json").is_file() for file in compiled):
        found["compiled"] = lambda: compiled_steps([rows(file) for file in compiled])
    loops = {threads: f"benchmark-gru-loop-{threads}" for threads in (2, 1)}
    if all((folder / f"{file}.json").is_file() for file in loops.values()):
        found["gru-loop"] = lambda: gru_loop({n: rows(file) for n, file in loops.items()})
    return found


def near_and_far(rows: Rows) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each model its row at the shortest and at the longest context."""
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = sorted((row for row in rows if row["model"] == model), key=lambda row: row["context"])
        found.append((mine[0], mine[-1]))
    return found


def millions(row: dict[str, Any]) -> str:
    return f"{row['parameters'] / 1e6:.1f} M"


def decode(rows: Rows) -> Table:
    head = ["model", "parameters", "tokens/s after 16", "after 4,096", "of the products' floor",
            "state, bytes at 4,096", "peak, MB"]  # fmt: skip
    cells = [
        [
            near["model"], millions(near),
            f"{near['tokens_per_second']:.0f}", f"{far['tokens_per_second']:.0f}",
            f"{near['floor_fraction']:.2f}", f"{far['state_bytes']:,}", f"{far['peak_memory_bytes'] / 1e6:.0f}",
        ]
        for near, far in near_and_far(rows)
    ]  # fmt: skip
    return markdown(head, cells)


SHOWN = ("smt-gru", "smt-mlp", "smt-transformer", "gpt2", "mamba")


def speed(rows: Rows) -> Table:
    """The rows of `decode` that README shows."""
    pairs = {near["model"]: (near, far) for near, far in near_and_far(rows)}
    shown = [
        pairs[model] for model in ("smt-gru", "smt-mlp", "smt-transformer", "gpt2", "mamba") if model in pairs
    ]
    cells = [
        [near["model"], f"{near['tokens_per_second']:.0f}", f"{far['tokens_per_second']:.0f}",
         f"{far['state_bytes']:,}"]
        for near, far in shown
    ]  # fmt: skip
    return markdown(["model", "after 16 tokens", "after 4,096", "bytes of state after 4,096"], cells)


def serve(rows: Rows) -> Table:
    """Servers by streams, and what a conversation of six turns costs."""
    head = ["model", "server", "streams", "tokens/s", "first token, ms (p50)", "p95", "turn 6 over turn 1",
            "bytes of a conversation"]  # fmt: skip
    cells = [
        [row["model"], row["server"], f"{row['streams']:,}", f"{row['tokens_per_second']:,.0f}",
         f"{1e3 * row['first_token_p50']:,.0f}", f"{1e3 * row['first_token_p95']:,.0f}",
         f"{row['turn_6'] / row['turn_1']:.2f}", f"{row['state_bytes']:,}"]
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells)


def serve_engine(rows: Rows) -> Table:
    return markdown(["what", "found"], [[row["what"], row["found"]] for row in rows])


def serve_shown(rows: Rows) -> Table:
    """Of each model the row with the most streams, from the server that did best."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = best.get(row["model"])
        if before is None or (row["streams"], row["tokens_per_second"]) > (
            before["streams"], before["tokens_per_second"],
        ):  # fmt: skip
            best[row["model"]] = row
    return serve(list(best.values()))


def decode_far(rows: Rows) -> Table:
    cells = [
        [near["model"], f"{near['tokens_per_second']:.0f}", f"{far['tokens_per_second']:.0f}",
         f"{far['tokens_per_second'] / near['tokens_per_second']:.2f}"]
        for near, far in near_and_far(rows)
    ]  # fmt: skip
    return markdown(["model", "tokens/s after 16", "after 16,384", "ratio"], cells)


COMPILED = ("small", "small-transformer", "small-gru", "gru", "paper")


def compiled_steps(pairs: list[Rows]) -> Table:
    """Tokens/s plain and compiled, in the same rounds, and the seconds that the compiler took."""
    cells = []
    for plain, program in pairs:
        both = plain["tokens_per_second"], program["tokens_per_second"]
        cells.append([plain["model"], millions(plain), f"{both[0]:.0f}", f"{both[1]:.0f}",
                      f"{both[1] / both[0]:.2f}", f"{program['compile_seconds']:.0f}"])  # fmt: skip
    return markdown(["model", "parameters", "tokens/s, plain", "compiled", "ratio", "s"], cells)


def gru_loop(by_threads: dict[int, Rows]) -> Table:
    """Tokens/s of a loop of `torch.nn.GRU`, our GRU over it, and its bytes of weights over the bandwidth."""
    cells = []
    for threads, rows in by_threads.items():
        found = {row["model"]: row for row in rows}
        loop, *ours = (found[name] for name in ("torch-gru", "smt-gru", "smt-gru, compiled"))
        speed = loop["tokens_per_second"]
        over = [f"{row['tokens_per_second'] / speed:.2f}" for row in ours]
        cells.append(
            [str(threads), f"{speed:.0f}", *over, *(f"{row['bandwidth_fraction']:.2f}" for row in ours)]
        )
    head = ["threads", "the loop, tokens/s", "ours over it", "compiled", "of the bandwidth", "compiled"]
    return markdown(head, cells)


def prefill(rows: Rows) -> Table:
    cells = [
        [row["model"], f"{row['tokens_per_second']:.0f}", f"{row['floor_fraction']:.2f}",
         f"{row['peak_memory_bytes'] / 1e6:.0f}"]
        for row in rows
    ]  # fmt: skip
    return markdown(["model", "tokens/s", "of the products' floor", "peak, MB"], cells)


def steps(rows: Rows, context: str) -> Table:
    """Training steps, those of a model together."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    rows = sorted(rows, key=lambda row: models.index(row["model"]))
    cells = [
        [row["model"], row["method"], f"{row['context']:,}", f"{row['tokens_per_second']:.0f}",
         f"{row['sequential_steps']}"]
        for row in rows
    ]  # fmt: skip
    return markdown(["model", "method", context, "tokens/s", "cell applications that wait"], cells)
