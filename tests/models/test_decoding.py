"""Our decoding loop against that of `transformers`, bit for bit, and the products it is fast by."""

from typing import Any

import pytest
import torch
from test_generation import NEW, drafting, greedy, prompt, talking_model
from tiny_models import BUILT_IN_CELLS, VOCAB, generate, memory_of, pad, random_ids
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationMixin, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from smt_hf import CELLS, SMTForCausalLM
from smt_hf.models import generation_loop
from smt_hf.models.generation_loop import DecodingMixin

DETAILED: dict[str, Any] = dict(return_dict_in_generate=True, output_scores=True, output_logits=True)
PLAIN: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": dict(do_sample=True, temperature=0.8, top_k=7, top_p=0.9),
    "sampling from all": dict(do_sample=True, top_k=0),
    "copies": dict(do_sample=True, num_return_sequences=3),
    "eos": dict(eos_token_id=[2, 5], pad_token_id=0, max_new_tokens=90),
    "eos, sampled": dict(do_sample=True, eos_token_id=3, pad_token_id=0, max_new_tokens=90),
    "processors that read the ids": dict(repetition_penalty=1.3, no_repeat_ngram_size=2, min_new_tokens=4),
    "static": dict(cache_implementation="static"),
    "chunks": dict(prefill_chunk_size=2),
    "beyond the first buffer": dict(max_new_tokens=150),
}


@pytest.fixture
def loops(monkeypatch):
    """loops("ours") or loops("theirs"): which loop `generate` runs from now on; both without prepacking."""
    monkeypatch.setattr(generation_loop, "MIN_TOKENS_TO_PREPACK", 10**9)
    ours = DecodingMixin._is_plain
    theirs = GenerationMixin._sample

    def choose(name: str) -> None:
        def must_not_run(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the loop of transformers ran")

        monkeypatch.setattr(DecodingMixin, "_is_plain", ours if name == "ours" else lambda *args: False)
        monkeypatch.setattr(GenerationMixin, "_sample", must_not_run if name == "ours" else theirs)

    return choose


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit: tokens, scores, logits and state."""
    assert torch.equal(one.sequences, other.sequences)
    for name in ("scores", "logits"):
        assert len(one[name]) == len(other[name]) == one.sequences.shape[1] - 5
        assert all(torch.equal(x, y) for x, y in zip(one[name], other[name], strict=True))
    assert torch.equal(memory_of(one.cache), memory_of(other.cache))
    assert int(one.cache.get_seq_length()) == int(other.cache.get_seq_length())


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("cell", ["elman", "transformer"])
def test_tokens_scores_and_state_are_bit_for_bit_those_of_transformers(cell, name, loops):
    model = talking_model(cell)
    outputs = []
    for loop in ("ours", "theirs"):
        loops(loop)
        torch.manual_seed(5)
        options = {"max_new_tokens": NEW, "do_sample": False, **PLAIN[name]}
        outputs.append(generate(model, prompt(3), **DETAILED, **options))
    assert_same(*outputs)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
def test_every_cell_decodes_a_ragged_batch_as_transformers_does_in_either_precision(cell, loops):
    for dtype in (torch.float32, torch.bfloat16):
        model = talking_model(cell)
        model.to(dtype)  # type: ignore[arg-type]  # the library's wrapper hides `self`
        ids, mask = pad([random_ids(n) for n in (5, 2, 4)], "left")
        outputs = []
        for loop in ("ours", "theirs"):
            loops(loop)
            outputs.append(generate(model, ids, attention_mask=mask, max_new_tokens=NEW, **DETAILED))
        assert_same(*outputs)


def test_embeddings_and_a_given_state_go_through_our_loop_too(loops):
    model = talking_model()
    embeds = model.get_input_embeddings()(prompt(2)).detach()
    runs = []
    for loop in ("ours", "theirs"):
        loops(loop)
        first = generate(model, inputs_embeds=embeds, max_new_tokens=6, return_dict_in_generate=True)
        whole = torch.cat([prompt(2), first.sequences], dim=1)
        state = first.cache
        runs.append(generate(model, whole, cache=state, max_new_tokens=6))
    assert torch.equal(*runs)
    assert torch.equal(runs[0], greedy(model, prompt(2), 12))


class OtherForward(SMTForCausalLM):
    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = -outputs.logits
        return outputs


def with_hook(model: Any) -> dict:
    model.register_forward_hook(lambda module, args, output: None)
    return {}


def with_inner_hook(model: Any) -> dict:
    model.model.register_forward_pre_hook(lambda module, args: None)
    return {}


def with_other_forward(model: Any) -> dict:
    model.__class__ = OtherForward
    return {}


def with_replaced_forward(model: Any) -> dict:
    model.forward = model.forward
    return {}


def with_compiled_call(model: Any) -> dict:
    model._compiled_call_impl = model._call_impl
    return {}


UNUSUAL: dict[str, Any] = {
    "a forward hook": with_hook,
    "a hook of the base model": with_inner_hook,
    "a forward of one's own": with_other_forward,
    "a replaced forward": with_replaced_forward,
    "a compiled model": with_compiled_call,
    "hidden states": lambda model: dict(output_hidden_states=True, return_dict_in_generate=True),
    "no cache": lambda model: dict(use_cache=False),
    "an unknown input": lambda model: dict(position_ids=torch.arange(5)[None]),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_our_loop_would_pass_by_goes_to_the_loop_of_transformers(name, monkeypatch):
    model = talking_model()
    options = UNUSUAL[name](model)
    monkeypatch.setattr(DecodingMixin, "_decode", lambda *args: pytest.fail("our loop ran"))
    out = generate(model, prompt(), max_new_tokens=NEW, do_sample=False, **options)
    plain = talking_model()
    if name == "a forward of one's own":
        with torch.no_grad():
            plain.lm_head.weight.neg_()
    assert torch.equal(out.sequences if "hidden" in name else out, greedy(plain, prompt()))


def test_an_assistant_is_decoded_by_transformers_which_asks_for_its_past(monkeypatch):
    ours = talking_model()
    assistant = drafting(talking_model("gru"), 3)
    monkeypatch.setattr(DecodingMixin, "_decode", lambda *args: pytest.fail("our loop ran"))
    out = generate(ours, prompt(), max_new_tokens=NEW, do_sample=False, assistant_model=assistant)
    assert torch.equal(out, greedy(ours, prompt()))


class StopsOnScores(StoppingCriteria):
    """Ends a row at its third token whose best score is above the mean; keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[torch.Tensor] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.shown.append(input_ids)
        return torch.tensor([row[-1] == 3 for row in input_ids]) | torch.full(
            (len(input_ids),), len(scores) > 20
        )


def test_stopping_criteria_see_ids_and_scores_and_may_keep_them(loops):
    model = talking_model()
    shown = []
    for loop in ("ours", "theirs"):
        loops(loop)
        criterion = StopsOnScores()
        out = generate(
            model, prompt(3), max_new_tokens=200, do_sample=False, stopping_criteria=[criterion],
            pad_token_id=0, **DETAILED,
        )  # fmt: skip
        assert out.sequences.shape[1] <= 5 + 21
        shown.append(criterion.shown)
    assert len(shown[0]) == len(shown[1])
    for one, other in zip(*shown, strict=True):
        assert one.is_contiguous() and torch.equal(one, other)


class BreaksOff(BaseStreamer):
    """Puts what comes into a list, and raises when it has seen the prompt and `after` tokens."""

    def __init__(self, after: int):
        self.put_count, self.after = -1, after

    def put(self, value: torch.Tensor) -> None:
        self.put_count += 1
        if self.put_count == self.after:
            raise KeyboardInterrupt

    def end(self) -> None:
        raise AssertionError("broken off before the end")


def test_a_run_that_is_broken_off_leaves_the_state_at_what_has_been_read():
    model = talking_model()
    with torch.no_grad():
        state = model(prompt()).cache
    new = random_ids(1, 2, seed=4)
    whole = torch.cat([prompt(), new], dim=1)
    with pytest.raises(KeyboardInterrupt):
        generate(model, whole, cache=state, max_new_tokens=NEW, streamer=BreaksOff(4))
    read = greedy(model, whole, 3)
    assert int(state.get_seq_length()) == read.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(memory_of(state), memory_of(model(read).cache))


# ------------------------------------------------------------------ work per token


class CountOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(model: Any, ids: torch.Tensor, new: int, **options: Any) -> int:
    with CountOperations() as counter:
        generate(model, ids, max_new_tokens=new, do_sample=False, **options)
    return counter.count


def operations_per_token(model: Any, ids: torch.Tensor, **options: Any) -> float:
    return (operations(model, ids, 40, **options) - operations(model, ids, 20, **options)) / 20


# Tensor operations of one generated token, views included: two layers of the cell, two of the readout.
MOST_OPERATIONS = {"transformer": 205, "mlp": 146, "gru": 145, "lstm": 149, "elman": 131}


@pytest.mark.parametrize("cell", CELLS)  # a cell without a bound here fails
def test_operations_per_token_stay_few_and_do_not_grow_with_the_context(cell, loops):
    model = talking_model(cell)
    loops("theirs")
    theirs = operations_per_token(model, prompt())
    loops("ours")
    ours = operations_per_token(model, prompt())
    assert ours <= MOST_OPERATIONS[cell]
    assert ours <= theirs - 20
    assert operations_per_token(model, random_ids(1, 300)) == ours


def test_the_device_is_not_waited_for_where_only_the_length_ends_the_run(monkeypatch):
    """Reading a tensor's value on the host, which stalls a GPU: not once a token without eos, once with it."""
    model = talking_model()
    reads = []

    class CountReads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                reads.append(func)
            return func(*args, **(kwargs or {}))

    def reads_of(new: int, **options: Any) -> int:
        reads.clear()
        with CountReads():
            generate(model, prompt(), max_new_tokens=new, do_sample=False, **options)
        return len(reads)

    assert reads_of(40) == reads_of(20)
    never = dict(eos_token_id=VOCAB + 5, pad_token_id=0)
    assert reads_of(40, **never) - reads_of(20, **never) == 20
