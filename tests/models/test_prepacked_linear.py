"""Prepacked products: the answer of the plain ones, and nothing that others do to an operation is passed by."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from test_generation import NEW, greedy, prompt, talking_model
from tiny_models import BUILT_IN_CELLS, generate, memory_of, pad, random_ids, tiny_model
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationMixin

from smt_hf.models import generation_loop, prepacked_linear
from smt_hf.models.generation_loop import DecodingMixin
from smt_hf.models.prepacked_linear import can_be_prepacked, prepacked_weights


@pytest.fixture
def prepack_small(monkeypatch):
    """Prepack the layers of a tiny model too, single rows included."""
    monkeypatch.setattr(prepacked_linear, "MIN_WEIGHTS", 1)
    monkeypatch.setattr(prepacked_linear, "pays_for_one_row", lambda linears, packed: True)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_prepacked_products_equal_the_plain_ones_up_to_rounding(cell, prepack_small):
    model = tiny_model(cell)
    ids, mask = pad([random_ids(n) for n in (7, 3)], "left")
    expected = model(ids, attention_mask=mask).logits
    with prepacked_weights(model):
        replaced = [m for m in model.modules() if "forward" in m.__dict__]
        assert len(replaced) == sum(isinstance(m, torch.nn.Linear) for m in model.modules())
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, expected, rtol=1e-4, atol=1e-5)
    assert not any("forward" in m.__dict__ for m in model.modules())
    assert torch.equal(model(ids, attention_mask=mask).logits, expected)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@pytest.mark.parametrize("sampling", [{}, dict(do_sample=True, top_k=9, temperature=0.9)])
def test_prepacking_changes_no_token(cell, sampling, monkeypatch, prepack_small):
    model = talking_model(cell)
    outputs = []
    for threshold in (0, 10**9):
        monkeypatch.setattr(generation_loop, "MIN_TOKENS_TO_PREPACK", threshold)
        torch.manual_seed(2)
        outputs.append(generate(model, prompt(2), **{"max_new_tokens": 60, "do_sample": False, **sampling}))
    assert torch.equal(*outputs)


def test_a_change_of_the_weights_counts_at_the_next_call_however_it_was_made(prepack_small):
    model = talking_model()
    generate(model, prompt(), max_new_tokens=20)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.mul_(-1.0)  # leaves no trace in the parameter's version
    assert torch.equal(generate(model, prompt(), max_new_tokens=20), greedy(model, prompt(), 20))


def test_only_plain_float32_layers_on_a_cpu_are_prepacked(prepack_small):
    class Wrapped(torch.nn.Linear):
        pass

    hooked: Any = torch.nn.Linear(2, 2)
    hooked.forward = hooked.forward  # as accelerate leaves it
    assert can_be_prepacked(torch.nn.Linear(2, 2))
    for layer in (
        Wrapped(2, 2),
        hooked,
        torch.nn.Linear(2, 2).bfloat16(),
        torch.nn.Linear(2, 2, device="meta"),
    ):
        assert not can_be_prepacked(layer)


@torch.no_grad()
def test_small_layers_and_single_rows_that_gain_nothing_are_multiplied_as_they_are(monkeypatch):
    small, large = torch.nn.Linear(8, 8), torch.nn.Linear(16, 16)
    monkeypatch.setattr(prepacked_linear, "MIN_WEIGHTS", 65)
    both: Any = torch.nn.ModuleList([small, large])
    for pays in (True, False):
        monkeypatch.setattr(prepacked_linear, "pays_for_one_row", lambda linears, packed, pays=pays: pays)
        for rows, prepacked in ((1, pays), (2, True)):
            x = torch.randn(rows, 16)
            with prepacked_weights(both), torch.profiler.profile(acc_events=True) as profile:
                assert "forward" not in small.__dict__
                large(x)
            names = {event.key for event in profile.key_averages()}
            assert ("mkldnn::_linear_pointwise" in names) == prepacked


@pytest.mark.parametrize("faster", [True, False])
@torch.no_grad()
def test_whether_packing_pays_for_one_row_is_measured_once(faster, monkeypatch):
    """A clock that only products move: a packed one takes half as long as a plain one, or twice."""
    now, calls, plain = [0.0], [], torch.nn.functional.linear

    def takes(seconds, result):
        now[0] += seconds
        calls.append(seconds)
        return result

    packed_seconds = 0.5 if faster else 2.0
    monkeypatch.setattr(prepacked_linear, "perf_counter", lambda: now[0])
    monkeypatch.setattr(prepacked_linear.F, "linear", lambda x, w, b: takes(1.0, plain(x, w, b)))
    monkeypatch.setattr(prepacked_linear, "multiply", lambda *given: takes(packed_seconds, given[-1]))
    monkeypatch.setattr(prepacked_linear, "_measured", {})
    linears: list[Any] = [torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)]
    weights = [linear.weight for linear in linears]
    assert prepacked_linear.pays_for_one_row(linears, weights) == faster
    assert len(calls) == 2 * 2 * prepacked_linear.ROUNDS
    assert prepacked_linear.pays_for_one_row(linears, weights) == faster
    assert len(calls) == 2 * 2 * prepacked_linear.ROUNDS


def test_short_runs_are_not_prepacked(monkeypatch):
    entered = []

    @contextmanager
    def record(model: Any) -> Iterator[None]:
        entered.append(model)
        yield

    monkeypatch.setattr(generation_loop, "prepacked_weights", record)
    model = talking_model()
    generate(model, prompt(), max_new_tokens=generation_loop.MIN_TOKENS_TO_PREPACK - 6)
    assert not entered
    generate(model, prompt(), max_new_tokens=generation_loop.MIN_TOKENS_TO_PREPACK - 5)
    assert entered == [model]


# ------------------------------------------------------------------ what others do to operations


class SeenByFunctionMode(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.linears = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.linears += function is torch.nn.functional.linear
        return function(*args, **(kwargs or {}))


class SeenByDispatchMode(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.linears = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.linears += "mm" in function.name()
        assert "mkldnn" not in function.name()
        return function(*args, **(kwargs or {}))


def theirs(model: Any, **options: Any) -> Any:
    """What the loop of `transformers` generates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DecodingMixin, "_sample", GenerationMixin._sample)
        return generate(model, prompt(2), max_new_tokens=NEW, do_sample=False, **options)


# The mlp cell normalises its memory in the precision of its inputs; torch says it is not its fastest way.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_autocast_around_generate_gives_what_it_gives_the_loop_of_transformers(cell, options, prepack_small):
    model = talking_model(cell)
    options = {**options, "return_dict_in_generate": True, "output_logits": True}
    with torch.autocast("cpu", torch.bfloat16):
        ours = generate(model, prompt(2), max_new_tokens=NEW, do_sample=False, **options)
        expected = theirs(model, **options)
    assert torch.equal(ours.sequences, expected.sequences)
    assert all(torch.equal(x, y) for x, y in zip(ours.logits, expected.logits, strict=True))
    assert not torch.equal(ours.logits[0], theirs(model, **options).logits[0])  # it was in half precision


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_autocast_around_generate_works_at_widths_that_are_prepacked_in_earnest(cell):
    model = tiny_model(cell, hidden_size=368, intermediate_size=400, num_hidden_layers=1)
    ids = random_ids(2, 4)
    assert any(map(can_be_prepacked, model.modules()))
    with torch.autocast("cpu", torch.bfloat16):
        found = generate(model, ids, max_new_tokens=20, do_sample=False, return_dict_in_generate=True)
        again = model(found.sequences[:, :-1])
    assert found.sequences.shape == (2, 24)
    torch.testing.assert_close(memory_of(found.cache), memory_of(again.cache), rtol=0, atol=0.1)


def modules_are_hooked(name: str) -> Any:
    @contextmanager
    def hooked(model: Any, seen: list[int]) -> Iterator[None]:
        layer = model.model.cell.hidden_proj[0]
        handle = getattr(layer, name)(lambda *_: seen.append(1))
        yield
        handle.remove()

    return hooked


def all_modules_are_hooked(name: str) -> Any:
    @contextmanager
    def hooked(model: Any, seen: list[int]) -> Iterator[None]:
        handle = getattr(torch.nn.modules.module, name)(
            lambda module, *_: seen.append(1) if module in (model, model.model) else None
        )
        yield
        handle.remove()

    return hooked


@contextmanager
def mode(model: Any, seen: list[int], kind: Any) -> Iterator[None]:
    with kind() as entered:
        yield
    seen.extend([1] * entered.linears)


@contextmanager
def weight_is_changed_before_use(model: Any, seen: list[int]) -> Iterator[None]:
    def change(layer: Any, args: Any) -> None:
        layer.weight.data.mul_(-1.0)
        seen.append(1)

    handle = model.model.cell.hidden_proj[0].register_forward_pre_hook(change)
    yield
    handle.remove()
    if len(seen) % 2:
        model.model.cell.hidden_proj[0].weight.data.mul_(-1.0)


WATCHED: dict[str, Any] = {
    "a forward hook": modules_are_hooked("register_forward_hook"),
    "a pre-hook": modules_are_hooked("register_forward_pre_hook"),
    "a hook that changes the weight": weight_is_changed_before_use,
    "a hook of all modules": all_modules_are_hooked("register_module_forward_hook"),
    "a pre-hook of all modules": all_modules_are_hooked("register_module_forward_pre_hook"),
    "a function mode": lambda model, seen: mode(model, seen, SeenByFunctionMode),
    "a dispatch mode": lambda model, seen: mode(model, seen, SeenByDispatchMode),
}


@pytest.mark.parametrize("name", WATCHED)
def test_what_watches_operations_or_modules_sees_what_it_sees_in_the_loop_of_transformers(name, prepack_small):
    model = talking_model()
    seen: tuple[list[int], list[int]] = ([], [])
    with WATCHED[name](model, seen[0]):
        ours = generate(model, prompt(2), max_new_tokens=NEW, do_sample=False)
    with WATCHED[name](model, seen[1]):
        expected = theirs(model)
    assert torch.equal(ours, expected)
    assert len(seen[0]) == len(seen[1]) > 0


def full_backward_hook(model: Any) -> AbstractContextManager:
    model.lm_head.register_full_backward_hook(lambda *_: None)
    return nullcontext()


def compiled_part(model: Any) -> AbstractContextManager:
    model.model.readout._compiled_call_impl = model.model.readout._call_impl
    return nullcontext()


def replaced_forward(model: Any) -> AbstractContextManager:
    model.model.cell.forward = model.model.cell.forward
    return nullcontext()


@contextmanager
def hook_of_all_modules(model: Any) -> Iterator[None]:
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    yield
    handle.remove()


IN_DOUBT: dict[str, Any] = {
    "a hook of all modules": hook_of_all_modules,
    "autocast": lambda model: torch.autocast("cpu", torch.bfloat16),
    "a full backward hook": full_backward_hook,
    "a compiled part": compiled_part,
    "a replaced forward": replaced_forward,
    "a device as a mode": lambda model: torch.device("cpu"),
}


@pytest.mark.parametrize("name", IN_DOUBT)
@torch.no_grad()
def test_in_doubt_nothing_is_prepacked(name, prepack_small):
    model = tiny_model()
    before = {module for module in model.modules() if "forward" in module.__dict__}
    with IN_DOUBT[name](model), prepacked_weights(model):
        replaced = {module for module in model.modules() if "forward" in module.__dict__} - before
        assert not any(isinstance(module, torch.nn.Linear) for module in replaced)


def test_a_function_transform_sees_plain_products(prepack_small):
    model = tiny_model()

    def first(scale: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), prepacked_weights(model):
            assert "forward" not in model.lm_head.__dict__
            return model.lm_head(scale * torch.ones(3, 16))[0, 0]

    assert torch.func.vmap(first)(torch.ones(4)).shape == (4,)


@torch.no_grad()
def test_autocast_and_tensors_of_another_kind_inside_of_a_cell_count(prepack_small):
    class Marked(torch.Tensor):
        pass

    model, x = tiny_model(), torch.randn(3, 16)
    with prepacked_weights(model):
        assert "forward" in model.lm_head.__dict__
        assert type(model.lm_head(x.as_subclass(Marked))) is Marked
        with torch.autocast("cpu", torch.bfloat16):
            assert model.lm_head(x).dtype == torch.bfloat16
        assert model.lm_head(x).dtype == torch.float32


def test_layers_with_weights_of_another_layout_or_bias_are_left_alone(prepack_small):
    odd: Any = torch.nn.Linear(4, 4)
    odd.bias = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    sparse: Any = torch.nn.Linear(4, 4)
    sparse.weight = torch.nn.Parameter(torch.eye(4).to_sparse())
    assert not can_be_prepacked(odd) and not can_be_prepacked(sparse)
    turned: Any = torch.nn.Linear(3, 4)
    turned.weight = torch.nn.Parameter(torch.randn(3, 4).t())
    layers, x = torch.nn.ModuleList([turned]), torch.randn(2, 3)
    with torch.no_grad():
        expected = turned(x)
        with prepacked_weights(layers):
            assert "forward" in turned.__dict__
            torch.testing.assert_close(turned(x), expected)
