"""`generate(compile_config=…)` on a CPU: one program for all tokens of the same weights; the same tokens."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_generation import NEW, greedy, prompt, talking_model
from tiny_models import BUILT_IN_CELLS, generate, memory_of, random_ids
from transformers import CompileConfig

from smt_hf.models import compiled_step

OPTIONS: dict[str, Any] = dict(max_new_tokens=NEW, do_sample=False)


def with_backend(backend: Any) -> CompileConfig:
    settings: dict[str, Any] = dict(backend=backend, fullgraph=True)
    return CompileConfig(**settings)


def recording(graphs: list) -> CompileConfig:
    """Puts each new graph into the list, and runs it as it is."""

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return with_backend(backend)


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_one_program_serves_all_tokens_and_calls_until_the_weights_change(cell):
    graphs: list = []
    model = talking_model(cell)
    config = recording(graphs)
    for rows, length, programs in [(1, 5, 1), (1, 3, 1), (3, 5, 2), (1, 9, 2), (3, 2, 2)]:
        ids = random_ids(rows, length, seed=length)
        assert torch.equal(generate(model, ids, compile_config=config, **OPTIONS), greedy(model, ids))
        assert len(graphs) == programs
    model.lm_head.weight.data.neg_()  # leaves no trace in the parameter's version
    assert torch.equal(generate(model, prompt(), compile_config=config, **OPTIONS), greedy(model, prompt()))
    assert len(graphs) == 3
    assert len(compiled_step.programs[model]) == 1  # those of the weights before are gone


def test_all_tokens_but_the_first_come_from_the_program():
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            calls.append(graph)
            return graph.forward(*args)

        return run

    generate(talking_model(), prompt(), compile_config=with_backend(backend), **OPTIONS)
    assert len(calls) == 1 + NEW - 1  # the first to make sure that it runs


def test_two_models_are_two_programs_and_draw_as_they_do_otherwise():
    graphs: list = []
    config = recording(graphs)
    for seed in (1, 2):
        model = talking_model("elman")
        model.lm_head.weight.data.mul_(seed)
        outputs = []
        for compiled in (None, config):
            torch.manual_seed(4)
            outputs.append(
                generate(model, prompt(2), max_new_tokens=NEW, do_sample=True, top_k=5, compile_config=compiled)
            )
        assert torch.equal(*outputs)
    assert len(graphs) == 2


def test_the_state_of_a_compiled_run_goes_on_with_and_without_a_program():
    graphs: list = []
    config = recording(graphs)
    model = talking_model()
    ids, state = prompt(2), None
    for compiled in (config, None, config):
        out = generate(
            model, ids, cache=state, compile_config=compiled, return_dict_in_generate=True, **OPTIONS
        )
        ids, state = out.sequences, out.cache
    assert torch.equal(ids, greedy(model, prompt(2), 3 * NEW))
    assert len(graphs) == 1
    with torch.no_grad():
        expected = memory_of(model(ids[:, :-1], use_cache=True).cache)
    torch.testing.assert_close(memory_of(state), expected)


def test_nothing_is_compiled_where_that_is_disabled():
    graphs: list = []
    model = talking_model()
    out = generate(model, prompt(), compile_config=recording(graphs), disable_compile=True, **OPTIONS)
    assert torch.equal(out, greedy(model, prompt())) and graphs == []


def test_a_mode_other_than_cuda_graphs_is_handed_to_the_compiler(monkeypatch):
    modes = []

    def compiler(function: Any, mode: str | None, **options: Any) -> Any:
        modes.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    model = talking_model()
    for mode in (CompileConfig().mode, "max-autotune", "default"):
        generate(model, prompt(), compile_config=CompileConfig(mode=mode), **OPTIONS)
    assert modes == [None, "max-autotune", "default"]


@pytest.fixture
def warnings_of(monkeypatch, caplog) -> Iterator[pytest.LogCaptureFixture]:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(compiled_step.logger, "propagate", True)
    with caplog.at_level(logging.WARNING, logger=compiled_step.logger.name):
        yield caplog


def test_without_a_working_compiler_one_line_warns_once_and_the_tokens_are_the_same(warnings_of):
    tried = []

    def backend(graph: Any, inputs: Any) -> Any:
        tried.append(graph)
        raise OSError("no C++ compiler\nand more lines")

    model, config = talking_model(), with_backend(backend)
    for _ in range(2):
        out = generate(model, prompt(), compile_config=config, **OPTIONS)
        assert torch.equal(out, greedy(model, prompt()))
    assert len(tried) == 1
    (record,) = [r for r in warnings_of.records if "could not be compiled" in r.getMessage()]
    assert "no C++ compiler" in record.getMessage() and "\n" not in record.getMessage()


class Scaled(torch.nn.Linear):
    """Keeps a number that is no tensor, as quantized layers do."""

    def get_extra_state(self) -> dict:
        return {"scale": 2.0}


def test_weights_that_cannot_be_told_apart_are_not_compiled(warnings_of):
    model = talking_model()
    model.lm_head.__class__ = Scaled
    out = generate(model, prompt(), compile_config=CompileConfig(), **OPTIONS)
    assert torch.equal(out, greedy(model, prompt()))
    assert "could not be compiled" in warnings_of.text and "lm_head._extra_state is a dict" in warnings_of.text
    assert model not in compiled_step.programs


def test_a_hook_sees_every_token_also_where_a_program_was_made_before(warnings_of):
    graphs: list = []
    model, config = talking_model(), recording(graphs)
    generate(model, prompt(), compile_config=config, **OPTIONS)
    assert len(graphs) == 1 and not warnings_of.text
    seen: list[int] = []
    model.model.cell.register_forward_hook(lambda *_: seen.append(1))
    out = generate(model, prompt(), compile_config=config, **OPTIONS)
    assert torch.equal(out, greedy(model, prompt()))
    assert len(seen) >= NEW and len(graphs) == 1 and "a hook" in warnings_of.text


def test_autocast_has_a_program_of_its_own():
    graphs: list = []
    model, config = talking_model(), recording(graphs)
    options = {**OPTIONS, "return_dict_in_generate": True, "output_logits": True}
    plain = generate(model, prompt(), compile_config=config, **options)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            half = generate(model, prompt(), compile_config=config, **options)
            expected = generate(model, prompt(), **options)
        assert torch.equal(half.sequences, expected.sequences)
        assert not torch.equal(half.logits[-1], plain.logits[-1])
    assert len(graphs) == 2
    assert torch.equal(generate(model, prompt(), compile_config=config, **options).logits[-1], plain.logits[-1])


def test_weights_are_told_apart_by_any_bit_of_any_of_them():
    model = talking_model()
    seen = {compiled_step.hash_weights(model)}
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.detach().view(torch.uint8).flatten()[-1] ^= 1
        seen.add(compiled_step.hash_weights(model))
    assert len(seen) == 1 + len([*model.parameters(), *model.buffers()])


@pytest.mark.slow  # a C++ compiler works for a minute at each
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("cell", "weights"), [*((cell, 1) for cell in BUILT_IN_CELLS), ("gru", 2)])
def test_frozen_programs_give_the_logits_of_their_own_weights_up_to_rounding(cell, weights):
    model = talking_model(cell)
    detailed: dict[str, Any] = dict(return_dict_in_generate=True, output_logits=True, **OPTIONS)
    for _ in range(weights):
        for parameter in model.parameters():
            parameter.data.mul_(-1.1)
        expected = generate(model, prompt(), **detailed)
        found = generate(model, prompt(), compile_config=CompileConfig(), **detailed)
        assert all(compiled_step.programs[model].values())
        assert torch.equal(found.sequences, expected.sequences)
        for one, other in zip(found.logits, expected.logits, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
