"""Markdown tables of stored records: benchmarks, trials, and what was tried, one JSON file each."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .formats import spread
from .study import parse

Table = list[str]  # lines of Markdown
Rows = list[dict[str, Any]]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def record_tables(folder: Path) -> dict[str, Callable[[], Table]]:
    """Name → what makes the table out of a file in `folder`, as the functions below say."""
    made: dict[str, tuple[str, Callable[[Rows], Table]]] = {
        "decode": ("benchmark-decode", decode),
        "decode-16k": ("benchmark-decode-16k", decode_far),
        "speed": ("benchmark-decode", speed),
        "prefill": ("benchmark-prefill", prefill),
        "prefill-sweeps": ("trials-sweeps", prefill_sweeps),
        "train": ("benchmark-train", lambda rows: steps(rows, "context")),
        "dmt": ("benchmark-dmt", lambda rows: steps(rows, "rollout")),
        "serve": ("benchmark-serve", serve),
        "serve-readme": ("benchmark-serve", serve_shown),
        "serve-engine": ("trials-serving", serve_engine),
        "int8-speed": ("trials-int8", int8_speed),
        "int8-bits": ("trials-int8", int8_bits),
        "prepack": ("trials-prepack", prepack),
        "prepack-epyc": ("trials-prepack-epyc", prepack),
        "labels": ("trials-labels", labels),
        "scaling": ("scaling", scaling),
        "teachers": ("teachers", teachers),
        "teachers-example": ("teachers-example", teachers),
        "teachers-mixture": ("teachers-mixture", teachers),
        "names": ("names", names),
        "tried-stack": ("exploration-stack", tried_stack),
        "tried-text": ("exploration-text", tried_text),
    }
    found: dict[str, Callable[[], Table]] = {
        name: partial(made_of, folder, file, make)
        for name, (file, make) in made.items()
        if (folder / f"{file}.json").is_file()
    }
    if (folder / "exploration-modular.json").is_file():
        found["tried-modular"] = lambda: tried_modular(read(folder, "exploration-modular"))
    compiled = [f"benchmark-compiled-{name}" for name in COMPILED]
    if all((folder / f"{file}.json").is_file() for file in compiled):
        found["compiled"] = lambda: compiled_steps([read(folder, file)["rows"] for file in compiled])
    loops = {threads: f"benchmark-gru-loop-{threads}" for threads in (2, 1)}
    if all((folder / f"{file}.json").is_file() for file in loops.values()):
        found["gru-loop"] = lambda: gru_loop({n: read(folder, file)["rows"] for n, file in loops.items()})
    return found


def made_of(folder: Path, file: str, make: Callable[[Rows], Table]) -> Table:
    record = read(folder, file)
    return make(record["rows"] if "rows" in record else record["runs"])


def read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    return parse(path, path.read_text(encoding="utf-8"))


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


def prefill_sweeps(rows: Rows) -> Table:
    """Tokens/s read one by one and by sweeps, and cell applications that wait, of trained models."""
    head = ["run", "tokens", "", "tokens/s, one by one", "by sweeps", "waits", "chunks one by one", "error"]
    cells = [
        [row["run"], f"{row['context']:,}", row["way"], f"{row['sequential']['tokens_per_second']:.0f}",
         f"{row['sweeps']['tokens_per_second']:.0f}", f"{row['waits']:,}", f"{row['fallbacks']}",
         f"{row['error']:.0e}"]
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells)


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


def int8_pairs(rows: Rows, name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    whole = {row[name]: row for row in rows if name in row and row["dtype"] == "float32"}
    return [(whole[row[name]], row) for row in rows if name in row and row["dtype"] == "int8"]


def int8_speed(rows: Rows) -> Table:
    cells = []
    for whole, small in int8_pairs(rows, "model"):
        both = whole["tokens_per_second"], small["tokens_per_second"]
        cells.append([whole["model"], f"{both[0]:.0f}", f"{both[1]:.0f}", f"{both[1] / both[0]:.2f}"])
    return markdown(["model", "float32", "int8", "ratio"], cells)


def int8_bits(rows: Rows) -> Table:
    cells = [
        [whole["run"], f"{whole['bits_per_byte']:.3f}", f"{small['bits_per_byte']:.3f}"]
        for whole, small in int8_pairs(rows, "run")
    ]
    return markdown(["run", "float32", "int8"], cells)


def prepack(rows: Rows) -> Table:
    cells = [
        [str(row["rows"]), f"{row['plain'] * 1e3:.2f}", f"{row['prepacked'] * 1e3:.2f}",
         f"{row['prepacked'] / row['plain']:.2f}"]
        for row in rows
    ]  # fmt: skip
    return markdown(["rows", "plain, ms", "prepacked, ms", "ratio"], cells)


def labels(rows: Rows) -> Table:
    """Steps of SMT by encoder and labels of a row, and labels a second over those of the first."""
    first = rows[0]["labels_per_second"]
    cells = [
        [
            row["encoder"],
            str(row["labels"]),
            f"{row['seconds'] * 1e3:.0f}",
            f"{row['labels_per_second'] / first:.1f}",
        ]
        for row in rows
    ]
    return markdown(["labels", "of a row", "step, ms", "labels a second"], cells)


def teachers(rows: Rows) -> Table:
    """Bits per byte of each variant: the mean of its seeds ± half their range."""
    cells = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        same = [row for row in rows if row["variant"] == variant]
        steps = statistics.mean(row["steps"] for row in same)
        seconds = statistics.mean(row["cpu_seconds"] for row in same)
        cells.append([
            variant, str(len(same)), spread([row["bits_per_byte"] for row in same]), f"{seconds:.0f}",
            f"{steps:,.0f}",
        ])  # fmt: skip
    return markdown(["run", "seeds", "bits per byte", "CPU seconds", "steps"], cells)


def names(rows: Rows) -> Table:
    cells = [
        [f"{row['method']}, {row['learning_rate']:g}", f"{row['accuracy']:.3f}", f"{row['cpu_seconds']:.0f}",
         f"{row['steps']:,}", f"{row['sequential_steps']:,}"]
        for row in sorted(rows, key=lambda row: (row["method"] != "smt", row["learning_rate"]))
    ]  # fmt: skip
    return markdown(["method, rate", "right", "CPU seconds", "steps", "sequential steps"], cells)


def scaling(rows: Rows) -> Table:
    """Medians of tokens/s; efficiency: over twice one process with one thread."""

    def median(method: str, processes: int, threads: int) -> float:
        wanted = {"method": method, "processes": processes, "threads": threads}
        return statistics.median(row["tokens_per_second"] for row in rows if wanted.items() <= row.items())

    cells = []
    for method, name in (("smt", "SMT → DMT"), ("bptt", "BPTT")):
        one, threads, two = median(method, 1, 1), median(method, 1, 2), median(method, 2, 1)
        cells.append([name, f"{one:,.0f}", f"{threads:,.0f}", f"{two:,.0f}", f"{two / one / 2:.2f}"])
    head = ["method", "one process, one thread", "one process, two threads",
            "two processes, one thread each", "efficiency"]  # fmt: skip
    return markdown(head, cells)


def tried_stack(runs: Rows) -> Table:
    cells = [[run["change"], f"{run['accuracy']:.3f}", f"{run['teacher']:.3f}"] for run in runs]
    return markdown(["run", "accuracy", "teacher"], cells)


def tried_text(runs: Rows) -> Table:
    cells = [[run["change"], f"{run['bits_per_byte']:.3f}", f"{run['dmt_steps']:,}"] for run in runs]
    return markdown(["change", "bits per byte", "steps of DMT"], cells)


def tried_modular(record: dict[str, Any]) -> Table:
    cells = [
        [
            f"the encoder alone, {run['change']}",
            f"{run['steps']:,}",
            f"{run['accuracy']:.3f}",
            f"{run['first']:.3f}",
        ]
        for run in record["encoder"]
    ]
    for run in record["teacher"]:
        cells.append(
            [f"SMT for four minutes, {run['change']}", f"{run['steps']:,}", f"{run['accuracy']:.3f}", ""]
        )
    return markdown(["change", "steps", "all answers", "the first"], cells)
