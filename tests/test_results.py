"""The figures in the documents are those of the stored results."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from smt_hf import SMTConfig, SMTForCausalLM
from smt_hf.evaluation.comparison import equal_budget_table, read_runs, short
from smt_hf.pretraining.assembly import SIZES
from smt_hf.pretraining.teacher import SMTTeacher, SMTTeacherConfig
from smt_hf.runs.spec import load_preset

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
RUNS = sorted(path.parent.name for path in RESULTS.glob("*/run.json"))


def record_of(name: str) -> dict:
    return json.loads((RESULTS / name / "run.json").read_text(encoding="utf-8"))


def row_of(name: str) -> str:
    """The row of docs/results.md that belongs to a run: nats per byte by horizon, or accuracy; and costs."""
    record = record_of(name)
    if record["data_kind"] == "task":
        figures = [f"{record['final']['accuracy']:.3f}"]
    else:
        figures = [f"{part['loss'] / record['bytes_per_token']:.3f}" for part in record["final"]["by_horizon"]]
    costs = [f"{record['seconds']:.0f}", short(record["tokens"]), short(record["sequential_steps"])]
    return "| " + " | ".join([name, *figures, *costs]) + " |"


@pytest.mark.parametrize("name", RUNS)
def test_every_stored_run_has_its_row(name):
    assert row_of(name) in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("group", ["text7", "cells"])
def test_the_figures_at_equal_budgets_are_those_that_compare_prints(group):
    table = equal_budget_table(read_runs([RESULTS / name for name in RUNS if name.startswith(group)]))
    assert table is not None
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [str(cell).replace(" | ", " / ") for cell in row]
        assert f"| {' | '.join(cells)} |" in text


def test_the_long_run_is_finite_and_its_figures_are_in_the_text():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    result = json.loads((RESULTS / "long_run-gru.json").read_text(encoding="utf-8"))
    assert result["finite"]
    for span, figure in result["bits_per_byte"].items():
        start, end = (f"{int(edge):,}" for edge in span.split("-"))
        assert f"| {start}–{end} | {figure:.3f} |" in text
    assert all(abs(rms - 1) < 1e-4 for rms in result["memory_rms"].values())
    sizes = {entry["state_bytes"] for entry in result["after_tokens"].values()}
    assert len(sizes) == 1
    for tokens, entry in result["after_tokens"].items():
        assert f"| {int(tokens):,} | {entry['state_bytes']:,} | {entry['process_bytes'] / 1e6:.1f} |" in text
    made = result["generation"]
    assert made["tokens"] == 1_000_000 and made["state_bytes"] in sizes
    for number, stretch in enumerate(made["stretches"], start=1):
        size = f"{stretch['process_bytes'] / 1e6:.1f}"
        assert f"| {number * made['stretch']:,} | {stretch['over_the_first']:.2f} | {size} |" in text


def test_the_figures_of_the_exploration_are_stored():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for run in json.loads((RESULTS / "exploration.json").read_text(encoding="utf-8"))["runs"]:
        assert f"| {run['change']} | {run['loss']:.2f} |" in text


def test_stored_records_name_no_path_of_a_machine():
    for name in RUNS:
        record = record_of(name)
        assert not Path(record["output_dir"]).is_absolute()
        assert not any(word.startswith("/") for word in record["command"])


def test_the_figures_of_scaling_are_the_stored_ones():
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    rows = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))["rows"]

    def speed(method: str, processes: int, threads: int) -> float:
        wanted = {"method": method, "processes": processes, "threads": threads}
        return statistics.median(row["tokens_per_second"] for row in rows if wanted.items() <= row.items())

    for method, name in (("smt", "SMT → DMT"), ("bptt", "BPTT")):
        one, threads, two = speed(method, 1, 1), speed(method, 1, 2), speed(method, 2, 1)
        assert f"| {name} | {one:,.0f} | {threads:,.0f} | {two:,.0f} | {two / one / 2:.2f} |" in text
        curves = [row["readout_loss"] for row in rows if row["method"] == method]
        gap = max(abs(a - b) for curve in curves for a, b in zip(curve, curves[0], strict=True))
        assert (f"{gap:.1e}" if method == "smt" else f"{gap:.3f}") in text


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_arithmetic_of_scaling_is_that_of_the_models():
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    large: dict[str, Any] = dict(
        hidden_size=2048, num_memory_tokens=16, num_readout_layers=4, num_attention_heads=16,
        num_hidden_layers=16, vocab_size=50257,
    )  # fmt: skip
    sizes = []
    _, paper = load_preset("paper", "transformer")
    for fields in ({name: paper[name] for name in (*SIZES, "num_hidden_layers")}, large):
        with torch.device("meta"):
            model = SMTForCausalLM(SMTConfig(cell="transformer", **fields))
            teacher = SMTTeacher(SMTTeacherConfig(**fields))
        labels = count(teacher)
        cell, embedding = (count(part) for part in (model.model.cell, model.model.embed_tokens))
        trained = cell + embedding + labels
        rest = count(model) - cell - embedding
        sizes.append((count(model), cell, labels, trained, 16 * trained + 4 * rest, 2 * 7 / 8 * 4 * trained))
    lines = text.splitlines()
    for column, name in enumerate(
        ["parameters of the model", "of them in the cell", "parameters of the teacher", "trained by SMT"]
    ):
        (line,) = (line for line in lines if line.startswith(f"| {name}"))
        small, big = (row[column] for row in sizes)
        assert line.endswith(f"| {small / 1e6:.1f} M | {big / 1e6:,.0f} M |")
    (held,) = (line for line in lines if line.startswith("| bytes a device"))
    assert held.endswith(f"| {sizes[0][4] / 1e9:.2f} GB | {sizes[1][4] / 1e9:.0f} GB |")
    (sent,) = (line for line in lines if line.startswith("| sent a device"))
    assert sent.endswith(f"| {sizes[0][5] / 1e9:.2f} GB | {sizes[1][5] / 1e9:.1f} GB |")


def benchmark(name: str) -> list[dict[str, Any]]:
    kind = "trials" if name in ("sweeps", "int8") else "benchmark"
    return json.loads((RESULTS / f"{kind}-{name}.json").read_text(encoding="utf-8"))["rows"]


def decode_lines() -> list[str]:
    """Rows of docs/performance.md: tokens/s after 16 and 4,096 tokens, fraction of the floor, state, peak."""
    rows = benchmark("decode")
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        short_context, long_context = (row for row in rows if row["model"] == model)
        lines.append(
            f"| {model} | {short_context['parameters'] / 1e6:.1f} M | {short_context['tokens_per_second']:.0f} "
            f"| {long_context['tokens_per_second']:.0f} | {short_context['floor_fraction']:.2f} "
            f"| {long_context['state_bytes']:,} | {long_context['peak_memory_bytes'] / 1e6:.0f} |"
        )
    return lines


def long_context_lines() -> list[str]:
    """Tokens/s after 16,384 tokens over those after 16: median, and lowest over highest of the repeats."""
    rows = benchmark("decode-16k")
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        near, far = (row for row in rows if row["model"] == model)
        ratio = far["tokens_per_second"] / near["tokens_per_second"]
        lines.append(
            f"| {model} | {near['tokens_per_second']:.0f} | {far['tokens_per_second']:.0f} | {ratio:.2f} |"
        )
    return lines


def prefill_lines() -> list[str]:
    return [
        f"| {row['model']} | {row['tokens_per_second']:.0f} | {row['floor_fraction']:.2f} "
        f"| {row['peak_memory_bytes'] / 1e6:.0f} |"
        for row in benchmark("prefill")
    ]


def step_lines(name: str) -> list[str]:
    return [
        f"| {row['model']} | {row['method']} | {row['context']:,} | {row['tokens_per_second']:.0f} "
        f"| {row['sequential_steps']} |"
        for row in benchmark(name)
    ]


def compiled_lines() -> list[str]:
    """Tokens/s plain and compiled, in the same rounds, and the seconds that the compiler took."""
    lines = []
    for name in ("small", "small-transformer", "small-gru", "gru", "paper"):
        plain, program = benchmark(f"compiled-{name}")
        ratio = program["tokens_per_second"] / plain["tokens_per_second"]
        lines.append(
            f"| {plain['model']} | {plain['parameters'] / 1e6:.1f} M | {plain['tokens_per_second']:.0f} "
            f"| {program['tokens_per_second']:.0f} | {ratio:.2f} | {program['compile_seconds']:.0f} |"
        )
    return lines


def sweep_lines() -> list[str]:
    """Tokens/s read one by one and by sweeps, and cell applications that wait, of trained models."""
    return [
        f"| {row['run']} | {row['context']:,} | {row['way']} | {row['sequential']['tokens_per_second']:.0f} "
        f"| {row['sweeps']['tokens_per_second']:.0f} | {row['waits']:,} | {row['fallbacks']} "
        f"| {row['error']:.0e} |"
        for row in benchmark("sweeps")
    ]


@pytest.mark.parametrize(
    "lines",
    [
        decode_lines,
        long_context_lines,
        prefill_lines,
        compiled_lines,
        sweep_lines,
        lambda: step_lines("train"),
        lambda: step_lines("dmt"),
    ],
    ids=["decode", "16k", "prefill", "compiled", "sweeps", "train", "dmt"],
)
def test_the_tables_of_performance_are_the_stored_ones(lines):
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").splitlines()
    assert lines() and set(lines()) <= set(text)


def test_the_figures_of_int8_are_the_stored_ones():
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for whole, small in zip(*[iter(benchmark("int8"))] * 2, strict=True):
        assert (whole["dtype"], small["dtype"]) == ("float32", "int8")
        if "model" in whole:
            speeds = whole["tokens_per_second"], small["tokens_per_second"]
            assert (
                f"| {whole['model']} | {speeds[0]:.0f} | {speeds[1]:.0f} | {speeds[1] / speeds[0]:.2f} |"
                in text
            )
        else:
            assert f"| {whole['run']} | {whole['bits_per_byte']:.3f} | {small['bits_per_byte']:.3f} |" in text


def test_the_speeds_of_the_readme_are_the_stored_ones():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = benchmark("decode")
    for model in ("smt-gru", "smt-mlp", "smt-transformer", "gpt2", "mamba"):
        near, far = (row for row in rows if row["model"] == model)
        speeds = f"{near['tokens_per_second']:.0f} | {far['tokens_per_second']:.0f}"
        assert f"| {model} | {speeds} | {far['state_bytes']:,} |" in text
    gains = [
        float(line.split(" | ")[4]) for line in compiled_lines() if "smt-gru" in line or "smt-small" in line
    ]
    assert f"are {min(gains):.1f} to {max(gains):.1f} times" in " ".join(text.split())
