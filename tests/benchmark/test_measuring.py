"""What the benchmark counts is what is there: bytes, products, sizes, rounds and cell applications."""

import json
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CompileConfig

from smt_hf.benchmark import decoding, training_steps
from smt_hf.benchmark.decoding import Subject, decode_run, measure_decode, random_ids
from smt_hf.benchmark.measure import ProductRecorder, interleave, peak_memory, rate, state_bytes, weight_bytes
from smt_hf.benchmark.models import BUILDERS, build_model, count_parameters
from smt_hf.benchmark.training_steps import dmt_steps, measure_steps, smt_and_bptt_steps
from smt_hf.cli import main
from smt_hf.models import generation_loop
from smt_hf.models.cell_gru import GRUCell

CPU = torch.device("cpu")
OF_ONE_SIZE = ("smt-small", "smt-paper", "rwkv", "xlstm")  # or slow to build


def test_rounds_are_interleaved_and_the_first_does_not_count():
    calls: list[str] = []

    def clock(name: str, step: float):
        def run() -> float:
            calls.append(name)
            return step * calls.count(name)

        return run

    assert interleave([clock("a", 1.0), clock("b", 10.0)], 2) == [[2.0, 3.0], [20.0, 30.0]]
    assert calls == ["a", "b"] * 3
    assert rate(6, [3.0, 1.0, 2.0]) == {"tokens_per_second": 3.0, "range": [2.0, 6.0]}


def test_peak_memory_is_weights_state_and_the_most_tensors_alive_at_once():
    def run() -> None:
        first = torch.zeros(1000)  # 4,000 bytes
        second = first + 1  # 4,000 more
        del first
        third = second + 1  # the first is gone
        del second, third
        torch.zeros(500)

    model = nn.Linear(10, 5, bias=False)
    assert peak_memory(model, [torch.zeros(3)], run) == 4 * 50 + 12 + 8000


def test_products_are_those_of_linear_layers_with_their_rows():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    with ProductRecorder(model) as recorder:
        model(torch.zeros(3, 5, 8))
    model(torch.zeros(1, 8))  # no longer recorded
    assert [(rows, tuple(weight.shape)) for rows, weight in recorder.products] == [(15, (4, 8)), (15, (2, 4))]
    assert weight_bytes([*recorder.products, recorder.products[0]]) == 4 * (32 + 8)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in OF_ONE_SIZE])
def test_no_other_size_is_nearer_to_the_one_asked_for(name):
    wanted = 2_000_000
    found = count_parameters(build_model(name, wanted))
    with torch.device("meta"):
        sizes = [count_parameters(BUILDERS[name](size)) for size in range(1, 12)]
    assert min(sizes, key=lambda size: abs(size - wanted)) == found


@pytest.mark.parametrize(("name", "grows"), [("smt-gru", False), ("smt-transformer", False), ("gpt2", True)])
def test_state_bytes_grow_with_the_context_where_there_is_a_cache_and_nowhere_else(name, grows):
    subject = Subject(name, build_model(name, 500_000), CPU, {})
    few, many = (state_bytes(subject.read(random_ids(length, CPU))) for length in (4, 8))
    assert many == (2 * few if grows else few)
    if not grows:
        config = subject.model.config
        assert few == 4 * config.num_memory_tokens * config.hidden_size


def test_a_run_goes_on_from_its_context_and_reads_no_token_twice():
    subject = Subject("smt-gru", build_model("smt-gru", 300_000), CPU, {})
    run, state = decode_run(subject, context=12, new=5)
    assert state.get_seq_length() == 11
    run()
    assert state.get_seq_length() == 11 + 1 + 5
    run()
    assert state.get_seq_length() == 11 + 2 * (1 + 5)


def test_a_program_of_a_gpu_goes_on_in_a_state_at_one_address_with_every_row_counted():
    """`transformers` compiles on a CPU too where it is told to, and the graph is run as it is."""
    graphs: list[Any] = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    settings: dict[str, Any] = dict(backend=backend, fullgraph=True, mode=None)
    config: Any = CompileConfig(**settings)
    config._compile_all_devices = True
    subject = Subject("smt-gru", build_model("smt-gru", 300_000), CPU, {"compile_config": config})
    subject.static = True
    run, state = decode_run(subject, context=12, new=5, rows=3)
    address = state.layers[0].memory.data_ptr()
    for turn in (1, 2):
        run()
        assert int(state.get_seq_length()) == 11 + turn * (1 + 5)
    assert state.layers[0].memory.data_ptr() == address and len(state.layers[0].memory) == 3
    assert len(graphs) == 1


def test_tokens_of_all_texts_of_a_batch_count_and_the_bandwidth_is_that_of_one_step(monkeypatch):
    subject = Subject("smt-gru", build_model("smt-gru", 300_000), CPU, {})
    monkeypatch.setattr(decoding, "interleave", lambda functions, repeats: [[0.5] for _ in functions])
    (one,) = measure_decode([subject], 3, new=4, repeats=1, bandwidth=1e9)
    (many,) = measure_decode([subject], 3, new=4, repeats=1, bandwidth=1e9, batch=8)
    assert (one["tokens_per_second"], many["tokens_per_second"], many["batch"]) == (8.0, 64.0, 8)
    assert many["bandwidth_fraction"] == one["bandwidth_fraction"]
    assert many["floor_fraction"] == one["floor_fraction"]
    assert many["state_bytes"] == 8 * one["state_bytes"]


@pytest.mark.parametrize(("dtype", "found"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_products_of_a_training_step_have_the_type_that_the_record_names(dtype, found, monkeypatch):
    types = set()
    plain = GRUCell.forward

    def noting(cell, memory, token):
        types.add(token.dtype)
        return plain(cell, memory, token)

    monkeypatch.setattr(GRUCell, "forward", noting)
    for step in smt_and_bptt_steps("gru", "tiny", [16], 32, getattr(torch, dtype)):
        step.run()
    assert types == {found}


def test_a_step_of_the_published_recipe_has_its_encoder_and_labels():
    objective = training_steps.build("gru", "paper", None, 32)
    assert objective.args.num_labels == 2
    assert objective.teacher is not None and objective.teacher.config.encoder_type == "bidirectional"


def test_a_step_waits_for_as_many_cell_applications_as_it_says(monkeypatch):
    calls: list[int] = []
    plain = GRUCell.forward

    def counted(*args):
        calls.append(1)
        return plain(*args)

    monkeypatch.setattr(GRUCell, "forward", counted)
    steps = [*smt_and_bptt_steps("gru", "tiny", [32], 64), *dmt_steps("gru", "tiny", 2, 16, [4])]
    for step in steps:
        calls.clear()
        step.run()
        assert len(calls) == step.sequential, step.method
    assert [step.tokens for step in steps] == [64] * 2 + [32] * 5
    rows = measure_steps(steps[:2], 1)
    assert [row["sequential_steps"] for row in rows] == [1, 32]


def test_the_command_prints_the_promised_object_and_skips_what_is_missing(tmp_path, capsys, monkeypatch):
    def absent(size: int) -> nn.Module:
        raise AttributeError("transformers has no such model")

    monkeypatch.setitem(BUILDERS, "mamba", absent)
    file = tmp_path / "out.json"
    words = ["benchmark", "decode", "--models", "smt-gru", "mamba", "--parameters", "3e5", "--context", "4"]
    words += ["--tokens", "4", "--repeats", "1", "--json", "--output", str(file)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "mamba cannot be run here and is skipped: transformers has no such model" in err
    result = json.loads(out)
    assert result == json.loads(file.read_text())
    assert result["machine"]["torch"] == torch.__version__
    (row,) = result["rows"]
    wanted = {"model", "parameters", "context", "tokens_per_second", "floor_fraction", "state_bytes"}
    assert wanted | {"peak_memory_bytes"} <= row.keys()
    assert main(words) == 2
    assert "exists; name a new file" in capsys.readouterr().err


def test_ours_are_measured_plain_and_compiled_and_the_others_once(monkeypatch, capsys):
    """The program is ours to count, not to build: a compiler would work for a minute."""
    compiled = []

    def step_as_it_is(model, step, config, memory, tokens):
        compiled.append(config)
        return step

    monkeypatch.setattr(generation_loop, "compiled_step", step_as_it_is)
    words = ["--models", "smt-gru", "gpt2", "--parameters", "3e5", "--context", "4", "--tokens", "4"]
    assert main(["benchmark", "decode", *words, "--repeats", "1", "--compile", "--json"]) == 0
    plain, program, other = json.loads(capsys.readouterr().out)["rows"]
    assert [row["model"] for row in (plain, program, other)] == ["smt-gru", "smt-gru, compiled", "gpt2"]
    assert len(compiled) == 3  # to build it, and in two rounds
    assert program["compile_seconds"] > 0
    assert all("compile_seconds" not in row and row["peak_memory_bytes"] for row in (plain, other))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["decode", "--models", "gpt7"], "'gpt7'"),
        (["train", "--models", "gpt2"], "'gpt2'"),
        (["decode", "--context", "0"], "--context is 0"),
        (["prefill", "--repeats", "0"], "--repeats is 0"),
        (["prefill", "--compile"], "--compile is for decode, not for prefill"),
        (["serve", "--dtype", "bfloat16"], "--dtype is for decode, prefill, train and dmt, not for serve."),
        (["train", "--batch", "9"], "--batch is for decode, not for train."),
        (["train", "--device", "cuda"], "--device is for decode and prefill, not for train."),
        (["dmt", "--streams", "5"], "--streams is for serve, not for dmt."),
        (["dmt", "--parameters", "7e6"], "--parameters is for decode, prefill and serve, not for dmt."),
        (["decode", "--dollars-per-hour", "0"], "--dollars-per-hour is for serve, not for decode."),
        (["decode", "--preset", "small"], "--preset is for train and dmt, not for decode."),
        (["prefill", "--tokens", "5"], "--tokens is for decode, train and dmt, not for prefill."),
        (["serve", "--threads", "3"], "--threads is for decode, prefill, train and dmt, not for serve."),
        (["serve", "--context", "100", "5000"], "--context is 100 5000; serve takes one"),
        (["serve", "--dollars-per-hour", "1", "--json"], "--dollars-per-hour is a column of the table"),
        (["decode", "--output", ""], "--output is empty"),
        (["decode", "--device", "tpu"], "--device is 'tpu'; it must be cpu or cuda."),
        (["decode", "--device", "meta"], "--device is 'meta'; it must be cpu or cuda."),
        (["decode", "--device", "cuda:99"], "--device is cuda:99 but torch sees no"),
        (["train", "--preset", "huge"], "'huge'"),
        (["train", "--context", "8"], "--context is 8"),
        (["dmt", "--context", "15"], "--context is 15"),
    ],
)
def test_a_wrong_word_is_named_in_one_line(words, named, capsys):
    assert main(["benchmark", *words]) == 2
    message = capsys.readouterr().err.strip()
    assert named in message and "\n" not in message


@pytest.mark.parametrize("what", ["train", "dmt"])
def test_steps_of_training_run_on_as_many_threads_as_asked(what, capsys, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(
        training_steps, "measure_steps", lambda steps, repeats: [{"of": torch.get_num_threads()}]
    )
    words = ["--preset", "tiny", "--context", "16", "--tokens", "16", "--threads", str(before + 1), "--json"]
    try:
        assert main(["benchmark", what, *words]) == 0
    finally:
        torch.set_num_threads(before)
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == [{"of": before + 1}] and result["machine"]["threads"] == before + 1
