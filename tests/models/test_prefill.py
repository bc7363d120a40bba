"""`prefill` by sweeps: the sequential state where it says so, and a true account of itself elsewhere."""

import pytest
import torch
from tiny_models import BUILT_IN_CELLS, generate, is_one_sentence, memory_of, pad, random_ids, tiny_model

from smt_hf import SMTForCausalLM
from smt_hf.models.generation_prefill import sweep

LENGTH = 12


@torch.no_grad()
def sequential(model: SMTForCausalLM, ids: torch.Tensor, state=None, **options) -> torch.Tensor:
    return memory_of(model(ids, cache=state, use_cache=True, **options).cache)


def assert_close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_as_many_sweeps_as_tokens_are_the_sequential_reading(cell):
    model = tiny_model(cell)
    ids = random_ids(3, LENGTH)
    out = model.prefill(ids, tolerance=0, max_sweeps=5, chunk=5)
    assert_close(memory_of(out.cache), sequential(model, ids))
    assert (out.residual, out.fallbacks) == (0, 0)
    assert out.sweeps <= LENGTH
    assert out.cache.get_seq_length() == LENGTH


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_p_sweeps_are_p_jacobi_iterations(cell):
    """A plain loop over all tokens, which never leaves a memory alone; nothing settles below so low a bar."""
    model = tiny_model(cell)
    core = model.model
    inputs = core.cell.project_inputs(core.embed_tokens(random_ids(2, LENGTH)))
    start = core.start_memory(2)
    iterated = [start] * (LENGTH + 1)
    for _ in range(4):
        iterated = [start, *(core.cell(iterated[t], inputs[:, t]) for t in range(LENGTH))]
    seen = []

    def watched(memory: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(core.cell(memory, inputs))
        return seen[-1]

    assert sweep(watched, start, inputs, None, 0.0, 4) == (None, 0.0, 4)
    last = seen[-1].view(2, -1, *start.shape[1:])
    assert last.shape[1] == LENGTH - 3
    for t in range(4, LENGTH + 1):
        assert_close(last[:, t - 4], iterated[t], 1e-5)


@torch.no_grad()
def test_the_residual_is_the_distance_to_the_memory_that_the_last_was_made_from(monkeypatch):
    model = tiny_model("elman")
    core = model.model
    for linear in core.cell.hidden_proj:
        linear.weight.mul_(0.3)  # forgets fast
    ids = random_ids(1, LENGTH)
    seen: list[torch.Tensor] = []
    forward = type(core.cell).forward

    def watched(cell, memory, inputs):
        seen.append(memory.clone())
        return forward(cell, memory, inputs)

    monkeypatch.setattr(type(core.cell), "forward", watched)
    inputs = core.cell.project_inputs(core.embed_tokens(ids))
    last, residual, sweeps = sweep(core.cell, core.start_memory(1), inputs, None, 0.05, LENGTH)
    assert sweeps == len(seen) < LENGTH and 0 < residual <= 0.05
    # Every token's last predecessor; it was made anew in the same sweep, or settled before.
    used: dict[int, torch.Tensor] = {}
    for memories in seen:
        for back, memory in enumerate(memories.flip(0)):
            used[LENGTH - 1 - back] = memory
    made = {t + 1: forward(core.cell, used[t][None], inputs[:, t])[0] for t in range(LENGTH)}
    distances = [(made[t] - used[t]).abs().max().item() for t in range(1, LENGTH)]
    assert residual == pytest.approx(max(distances), abs=1e-6)
    assert last is not None
    assert_close(last[0], made[LENGTH], 1e-6)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_a_chunk_that_does_not_settle_is_read_token_by_token_and_counted(cell):
    model = tiny_model(cell)
    ids = random_ids(2, LENGTH)
    out = model.prefill(ids, tolerance=0, max_sweeps=2, chunk=5)
    # Chunks of 5, 5 and 2: the last is exact after two sweeps.
    assert (out.residual, out.fallbacks, out.sweeps) == (0, 2, 6)
    assert_close(memory_of(out.cache), sequential(model, ids), 1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_sweeps", [1, 16])
def test_ragged_rows_are_read_as_each_alone(side, max_sweeps):
    model = tiny_model("transformer")
    rows = [random_ids(length, seed=length) for length in (11, 4, 7)]
    ids, mask = pad(rows, side)
    out = model.prefill(ids, attention_mask=mask, tolerance=1e-6, max_sweeps=max_sweeps, chunk=8)
    assert (out.fallbacks > 0) == (max_sweeps == 1)
    alone = torch.cat([sequential(model, row[None]) for row in rows])
    assert_close(memory_of(out.cache), alone)


def test_a_state_goes_on_and_generate_goes_on_from_it():
    model = tiny_model("gru", seed=8)
    ids = random_ids(1, LENGTH)
    first = model.prefill(ids[:, :5], tolerance=0)
    whole = model.prefill(ids[:, 5:-1], cache=first.cache, tolerance=0)
    assert whole.cache.get_seq_length() == LENGTH - 1
    assert_close(memory_of(whole.cache), sequential(model, ids[:, :-1]))
    found = generate(model, ids, cache=whole.cache, max_new_tokens=10, do_sample=False)
    assert torch.equal(found, generate(model, ids, max_new_tokens=10, do_sample=False))


def test_a_state_that_is_not_a_number_is_never_called_settled():
    model = tiny_model("mlp")
    with torch.no_grad():
        model.model.embed_tokens.weight[3] = float("nan")
    out = model.prefill(torch.tensor([[1, 3, 2, 2, 2, 2]]), tolerance=10, max_sweeps=3)
    assert out.fallbacks == 1 and memory_of(out.cache).isnan().all()


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (dict(tolerance=-1.0), ["tolerance=-1.0"]),
        (dict(tolerance=float("nan")), ["tolerance=nan"]),
        (dict(max_sweeps=0), ["max_sweeps=0"]),
        (dict(chunk=0), ["chunk=0"]),
        (dict(attention_mask=torch.ones(2, 3)), [3, LENGTH]),
    ],
)
def test_a_wrong_argument_is_named(options, values):
    with pytest.raises(ValueError) as caught:
        tiny_model().prefill(random_ids(2, LENGTH), **options)
    assert is_one_sentence(caught.value, *values)


def test_a_state_of_other_rows_is_refused_and_left_as_it_is():
    model = tiny_model()
    state = model.prefill(random_ids(2, 3)).cache
    with pytest.raises(ValueError) as caught:
        model.prefill(random_ids(3, 3), cache=state)
    assert is_one_sentence(caught.value, 2, 3)
    assert state.get_seq_length() == 3
