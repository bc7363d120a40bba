"""Measures sweeps, int8, prepacked weights and projected labels beside the plain way; prints one JSON object.

    python studies/measure_trials.py sweeps runs/measured/cells-gru-smt-0 … > results/trials-sweeps.json
    python studies/measure_trials.py int8 runs/measured/cells-gru-smt-0 … > results/trials-int8.json
    OMP_NUM_THREADS=1 python studies/measure_trials.py prepack > results/trials-prepack.json
    OMP_NUM_THREADS=1 python studies/measure_trials.py labels > results/trials-labels.json

sweeps: `prefill` of trained models on the validation part of python-docs, beside the sequential reading.
int8: `generate` with linear layers that torch quantizes dynamically (weights and inputs), beside float32, on
models of 7 and 9.6 M random weights; and bits per byte of trained models, on python-docs.
labels: one step of SMT on text, preset small, GRU, by the encoder and the labels of a row; the best of ten.
prepack: the larger products of the GRU of 7.6 M parameters, by the weights as they are and laid out by oneDNN.
"""

import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import smt_hf  # noqa: F401 - registers the architecture with the Auto classes
from smt_hf.benchmark.decoding import Subject, decode_run
from smt_hf.benchmark.measure import describe_machine, interleave, rate, seconds_of
from smt_hf.benchmark.models import build_model
from smt_hf.benchmark.training_steps import build, optimized, random_batch
from smt_hf.data import load_data
from smt_hf.evaluation.free_running import evaluate_rows
from smt_hf.models.prepacked_linear import can_be_prepacked, multiply
from smt_hf.runs.files import one_entry_a_line

CPU = torch.device("cpu")
CONTEXTS, REPEATS, NEW = (256, 1024), 3, 64
WAYS: dict[str, dict[str, Any]] = {"tolerance 1e-4": {}, "tolerance 1e-2": dict(tolerance=1e-2)}


@torch.no_grad()
def sweep_rows(runs: list[str]) -> list[dict[str, Any]]:
    """The first `context` tokens of one text by each way. error: of any entry of the last memory."""
    x, _ = load_data("python-docs", sequence_length=max(CONTEXTS)).validation.blocks(max(CONTEXTS), 1)
    rows = []
    for run in runs:
        model: Any = AutoModelForCausalLM.from_pretrained(run).eval()
        for context in CONTEXTS:
            ids = x[:1, :context]
            exact = model(ids, logits_to_keep=1, use_cache=True).cache.layers[0].memory
            clocks: list[Callable[[], float]] = [
                lambda model=model, ids=ids: seconds_of(lambda: model(ids, logits_to_keep=1))
            ]
            for options in WAYS.values():
                clocks.append(
                    lambda model=model, ids=ids, options=options: seconds_of(
                        lambda: model.prefill(ids, **options)
                    )
                )
            sequential, *timed = interleave(clocks, REPEATS)
            for (way, options), seconds in zip(WAYS.items(), timed, strict=True):
                out = model.prefill(ids, **options)
                found = out.cache.layers[0].memory
                rows.append({
                    "run": Path(run).name, "context": context, "way": way,
                    "sequential": rate(context, sequential), "sweeps": rate(context, seconds),
                    "waits": out.sweeps + out.fallbacks * min(context, 256),
                    "fallbacks": out.fallbacks, "residual": out.residual,
                    "error": (found - exact).abs().max().item(),
                })  # fmt: skip
    return rows


def quantized(model: torch.nn.Module) -> Any:
    with warnings.catch_warnings():  # that it is deprecated is part of the finding
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def int8_rows(runs: list[str]) -> list[dict[str, Any]]:
    """Tokens/s of `generate`, float32 and int8 in turn, and bits per byte of `runs` in both."""
    rows: list[dict[str, Any]] = []
    for name in ("smt-gru", "smt-paper"):
        plain = build_model(name, 7_000_000)
        models = {"float32": plain, "int8": quantized(plain)}
        clocks = [decode_run(Subject(name, model, CPU, {}), 16, NEW)[0] for model in models.values()]
        for dtype, seconds in zip(models, interleave(clocks, 2 * REPEATS), strict=True):
            rows.append({"model": name, "dtype": dtype, "context": 16, **rate(NEW, seconds)})
    x, y = load_data("python-docs", sequence_length=256).validation.blocks(256, 64)
    for run in runs:
        plain = AutoModelForCausalLM.from_pretrained(run).eval()
        for dtype, model in (("float32", plain), ("int8", quantized(plain))):
            loss = evaluate_rows(model, x, y)["loss"]
            rows.append({"run": Path(run).name, "dtype": dtype, "bits_per_byte": loss / math.log(2)})
    return rows


@torch.no_grad()
def prepack_rows(runs: list[str]) -> list[dict[str, Any]]:
    """Seconds of all larger products of a token, by the number of rows that share them; the best of ten."""
    model = build_model("smt-gru", 7_600_000)
    linears: list[Any] = [module for module in model.modules() if can_be_prepacked(module)]
    packed = [torch.ops.mkldnn._reorder_linear_weight(linear.weight) for linear in linears]
    found = []
    for rows in (1, 2, 4, 8, 16, 64):
        inputs = [torch.randn(rows, linear.in_features) for linear in linears]

        def plain(inputs=inputs) -> None:
            for linear, x in zip(linears, inputs, strict=True):
                linear(x)

        def prepacked(inputs=inputs) -> None:
            for linear, weight, x in zip(linears, packed, inputs, strict=True):
                multiply(linear, weight, True, linear.bias, x)

        clocks = [lambda work=work: seconds_of(work) for work in (plain, prepacked)]
        best = map(min, interleave(clocks, 10))
        found.append({"model": "smt-gru", "rows": rows, **dict(zip(("plain", "prepacked"), best, strict=True))})
    return found


def label_rows(runs: list[str]) -> list[dict[str, Any]]:
    """Steps of 16 rows of 160 tokens; labels of all tokens but the last, at most."""
    cases = [("causal", 8), *(("projected", labels) for labels in (8, 16, 32, 64, 127))]
    steps = []
    for encoder, labels in cases:
        objective = build("gru", "small", encoder, 128)
        batch, draws = random_batch(objective, 16, 160), {"timestep": 127 - labels, "num_labels": labels}
        steps.append(
            optimized(
                objective, "smt",
                lambda objective=objective, batch=batch, draws=draws: objective("smt", batch, **draws)[0],
                torch.float32,
            )
        )  # fmt: skip
    best = map(min, interleave([lambda step=step: seconds_of(step) for step in steps], 10))
    return [
        {"encoder": encoder, "labels": labels, "seconds": seconds, "labels_per_second": 16 * labels / seconds}
        for (encoder, labels), seconds in zip(cases, best, strict=True)
    ]


def main(what: str, runs: list[str]) -> None:
    rows = {"sweeps": sweep_rows, "int8": int8_rows, "prepack": prepack_rows, "labels": label_rows}[what](runs)
    print(one_entry_a_line({"what": what, "machine": describe_machine(CPU), "rows": rows}), end="")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
