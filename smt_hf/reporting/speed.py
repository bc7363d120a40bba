"""Stored records of `smt-hf benchmark`, as pictures beside those of the experiments."""

from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .drawing import Picture, canvas, finish, plain_powers, powers_of_two, styled
from .looks import CELLS, COLORS, INK, MARKERS
from .study import parse

PATTERN = "benchmark-*.json"
KINDS = ("decode", "prefill", "train", "dmt", "serve")
PEER_MARKERS = ("x", "+", "P", "X", "*", "h", "1", "2")
OFFICIAL = "dmt, official algorithm"
METHODS = {"smt": "SMT", "bptt": "BPTT"}


def read_benchmarks(folder: Path) -> dict[str, dict[str, Any]]:
    """The records in a folder by the name of their file.

    Raises ValueError for a file that `smt-hf benchmark` did not write.
    """
    found = {}
    for path in sorted(folder.glob(PATTERN)):
        record = parse(path, path.read_text(encoding="utf-8"))
        if record.get("what") not in KINDS or not isinstance(record.get("rows"), list):
            raise ValueError(f"{path} is no record of smt-hf benchmark; move it, or name it otherwise.")
        found[path.stem] = record
    return found


def by_context(rows: list[dict[str, Any]], quantity: str) -> dict[tuple[str, str], dict[int, float]]:
    """Model and method ("" where all are generating) → context → the quantity, contexts in order."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: row["context"]):
        found.setdefault((row["model"], row.get("method", "")), {})[row["context"]] = row[quantity]
    return found


def slowdown(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Time of a token at the longest context over that at the shortest; 1 costs the same at any length."""
    return {
        name: values[min(values)] / values[max(values)]
        for name, values in by_context(rows, "tokens_per_second").items()
    }


def speedups(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Method → its tokens per second over those of the official algorithm; {} without that."""
    official = [row["tokens_per_second"] for row in rows if row["method"] == OFFICIAL]
    return {row["method"]: row["tokens_per_second"] / official[0] for row in rows} if official else {}


def model_look(model: str, models: list[str]) -> dict[str, Any]:
    """Ours by the cell's colour; peers in the colour of the axes, told apart by marker."""
    cell = model.removeprefix("smt-")
    if cell in CELLS:
        return {"color": COLORS[CELLS.index(cell)], "marker": MARKERS[CELLS.index(cell)]}
    others = [name for name in models if name.removeprefix("smt-") not in CELLS]
    return {"color": INK, "marker": PEER_MARKERS[others.index(model) % len(PEER_MARKERS)]}


def size(number: float) -> str:
    """Bytes in words: 5120 → 5 kB; of 1,000 bytes."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:g} B"


def draw_bars(
    axis: Any, values: dict[str, float], texts: list[str], colors: list[Any], log: bool = False
) -> None:
    """Horizontal bars, the first on top, each with its figure. log: of bytes, on a logarithmic axis."""
    places = range(len(values))
    axis.barh(places, list(values.values()), height=0.62, color=colors, log=log)
    if log:
        axis.set_xlim(left=min(values.values()) / 5)  # a bar from there: only its end tells
        axis.xaxis.set_major_locator(LogLocator(numticks=5))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks(places, list(values))
    axis.invert_yaxis()
    for place, value, text in zip(places, values.values(), texts, strict=True):
        axis.annotate(text, (value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set_xlim(right=max(values.values()) * (30 if log else 1.3))


@styled
def decode(rows: list[dict[str, Any]]) -> Picture | None:
    """Tokens per second against the tokens read before, and the bytes of state after the most of them."""
    speed, states = by_context(rows, "tokens_per_second"), by_context(rows, "state_bytes")
    contexts = sorted({row["context"] for row in rows})
    if len(contexts) < 2:
        return None
    models = [model for model, _ in sorted(speed, key=lambda name: -speed[name][max(speed[name])])]
    figure, axes = canvas(1, 2, width=4.1, height=3.4)
    left, right = axes[0]
    for model in models:
        values = speed[model, ""]
        peer = {} if model.startswith("smt-") else {"linestyle": ":"}
        left.plot(
            list(values), list(values.values()), label=model, linewidth=2, **model_look(model, models), **peer
        )
    powers_of_two(left, contexts, [f"{n:,}" for n in contexts])
    left.set_ylim(bottom=0)
    left.set_xlabel("tokens read before")
    left.set_title("tokens per second", fontsize=11)
    held = {model: states[model, ""][max(states[model, ""])] for model in models}
    colors = [model_look(model, models)["color"] for model in models]
    draw_bars(right, held, [size(n) for n in held.values()], colors, log=True)
    right.set_title(f"state after {contexts[-1]:,} tokens", fontsize=11)
    finish(figure, axes, columns=4)
    right.grid(visible=False, axis="y")
    caption = (
        f"Tokens per second of generation after {contexts[0]:,} and after {contexts[-1]:,} tokens, "
        "and the state that each model carries; batch 1."
    )
    told = [
        f"{m}: {speed[m, ''][contexts[0]]:.0f}, then {speed[m, ''][contexts[-1]]:.0f}, {size(held[m])}"
        for m in models
    ]
    return Picture("decode", caption, "Tokens per second and state. " + "; ".join(told) + ".", figure)


@styled
def prefill(rows: list[dict[str, Any]]) -> Picture | None:
    """Tokens of a prompt read in a second."""
    context = max(row["context"] for row in rows)
    fastest = sorted(rows, key=lambda row: -row["tokens_per_second"])
    values = {row["model"]: row["tokens_per_second"] for row in fastest if row["context"] == context}
    figure, axes = canvas(1, 1, width=4.8, height=0.7 + 0.36 * len(values))
    colors = [model_look(model, list(values))["color"] for model in values]
    draw_bars(axes[0, 0], values, [f"{value:,.0f}" for value in values.values()], colors)
    axes[0, 0].set_xlabel(f"tokens per second of a prompt of {context:,}")
    finish(figure, axes)
    axes[0, 0].grid(visible=False, axis="y")
    told = "; ".join(f"{model}: {value:.0f}" for model, value in values.items())
    return Picture("prefill", f"How fast a prompt of {context:,} tokens is read.", f"Prefill. {told}.", figure)


@styled
def train(rows: list[dict[str, Any]]) -> Picture | None:
    """Tokens per second of whole training steps by context, SMT beside BPTT."""
    contexts = sorted({row["context"] for row in rows})
    if len(contexts) < 2:
        return None
    speed, ratios = by_context(rows, "tokens_per_second"), slowdown(rows)
    models = list(dict.fromkeys(model for model, _ in speed))
    figure, axes = canvas(1, 1, width=4.8, height=3.4)
    axis = axes[0, 0]
    told = []
    for (model, method), values in speed.items():
        label = f"{model.removeprefix('smt-')}, {METHODS[method]}: ×{ratios[model, method]:.2f}"
        bptt = {"linestyle": "--", "markerfacecolor": "none"} if method == "bptt" else {}
        axis.plot(
            list(values), list(values.values()), label=label, linewidth=2, **model_look(model, models), **bptt
        )
        told.append(label)
    powers_of_two(axis, contexts, [f"{n:,}" for n in contexts])
    axis.set_yscale("log")
    plain_powers(axis.yaxis)
    axis.set_xlabel("tokens of context")
    axis.set_ylabel("training tokens per second")
    finish(figure, axes)
    caption = (
        f"Training speed by context, and the time of a token at {contexts[-1]:,} over that at {contexts[0]:,}: "
        "SMT does not wait for the cell."
    )
    return Picture("train", caption, "Training speed. Time ratios: " + "; ".join(told) + ".", figure)


@styled
def dmt(rows: list[dict[str, Any]]) -> Picture | None:
    """Tokens per second of DMT steps, beside the official algorithm."""
    values = {row["method"].removeprefix("dmt, "): row["tokens_per_second"] for row in rows}
    over = speedups(rows)
    texts = [
        f"{row['tokens_per_second']:.0f}" + (f" (×{over[row['method']]:.1f})" if over else "") for row in rows
    ]
    colors = [
        INK if row["method"] == OFFICIAL else model_look(row["model"], [row["model"]])["color"] for row in rows
    ]
    figure, axes = canvas(1, 1, width=5.2, height=0.7 + 0.36 * len(values))
    draw_bars(axes[0, 0], values, texts, colors)
    axes[0, 0].set_xlabel("training tokens per second")
    finish(figure, axes)
    axes[0, 0].grid(visible=False, axis="y")
    caption = "Steps of DMT by how the rollout is made and how many of its timesteps are taught"
    caption += ", with the multiple of the official algorithm." if over else "."
    told = "; ".join(f"{name}: {text}" for name, text in zip(values, texts, strict=True))
    return Picture("dmt", caption, f"DMT speed. {told}.", figure)


@styled
def serve(rows: list[dict[str, Any]]) -> Picture:
    """Tokens per second of servers by the number of streams at once."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        found.setdefault((row["model"], row["server"]), {})[row["streams"]] = row["tokens_per_second"]
    models, counts = list(dict.fromkeys(row["model"] for row in rows)), sorted({row["streams"] for row in rows})
    figure, axes = canvas(1, 1, width=4.8, height=3.4)
    axis = axes[0, 0]
    for (model, server), values in found.items():
        dashed = {"linestyle": "--"} if "batching" in server else {}
        label = f"{model}, batched" if dashed else model
        axis.plot(list(values), list(values.values()), label=label, linewidth=2,
                  **model_look(model, models), **dashed)  # fmt: skip
    powers_of_two(axis, counts, [str(count) for count in counts])
    axis.set_yscale("log")
    plain_powers(axis.yaxis)
    axis.set_xlabel("streams at once")
    axis.set_ylabel("tokens per second, all streams")
    finish(figure, axes)
    told = "; ".join(f"{row['model']}, {row['method']}: {row['tokens_per_second']:.0f}" for row in rows)
    return Picture("serve", "Servers by the number of streams at once.", f"Tokens per second. {told}.", figure)


DRAW = {"decode": decode, "prefill": prefill, "train": train, "dmt": dmt, "serve": serve}
