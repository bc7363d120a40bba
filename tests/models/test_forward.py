"""Reading a sequence at once, token by token or in chunks, padded or not, is one and the same thing."""

import random

import pytest
import torch
import torch.nn.functional as F
from tiny_models import (
    BUILT_IN_CELLS,
    VOCAB,
    generate,
    is_one_sentence,
    memory_of,
    pad,
    random_ids,
    rms_norm,
    tiny_model,
)

from smt_hf import SMTForCausalLM

LENGTHS = (9, 4, 7, 1)


def plain_logits(model: SMTForCausalLM, row: torch.Tensor) -> torch.Tensor:
    """The reference: one unpadded row (T,), the cell in a loop from m_∅, a readout a step → (T, V)."""
    inner = model.model
    memory = rms_norm(inner.initial_memory)[None]
    logits = []
    for token in row:
        memory = rms_norm(inner.cell.step(memory, inner.cell.project_inputs(inner.embed_tokens(token[None]))))
        logits.append(model.lm_head(inner.readout(memory))[0, 0])
    return torch.stack(logits)


def read_in_parts(model: SMTForCausalLM, ids: torch.Tensor, mask: torch.Tensor, sizes: list[int]):
    """Logits of all positions and the final state, reading `sizes` tokens at a time."""
    state, logits, start = None, [], 0
    for size in sizes:
        end = start + size
        out = model(ids[:, start:end], attention_mask=mask[:, :end], cache=state)
        state = out.cache
        logits.append(out.logits)
        start = end
    return torch.cat(logits, dim=1), state


def random_sizes(length: int, seed: int) -> list[int]:
    generator = random.Random(seed)
    sizes: list[int] = []
    while sum(sizes) < length:
        sizes.append(generator.randint(1, min(4, length - sum(sizes))))
    return sizes


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_padded_rows_equal_rows_alone_at_once_stepwise_and_in_chunks(cell, side):
    model = tiny_model(cell)
    rows = [random_ids(length, seed=length) for length in LENGTHS]
    ids, mask = pad(rows, side)
    length = ids.shape[1]
    ways = [[length], [1] * length, *(random_sizes(length, seed) for seed in range(3))]
    alone = [plain_logits(model, row) for row in rows]
    for sizes in ways:
        logits, state = read_in_parts(model, ids, mask, sizes)
        for i, row in enumerate(rows):
            torch.testing.assert_close(logits[i][mask[i].bool()], alone[i], rtol=0, atol=1e-5)
            memory = memory_of(model(row[None]).cache)[0]
            torch.testing.assert_close(memory_of(state)[i], memory, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_padded_batch_of_one_equals_the_row_alone(side):
    model = tiny_model()
    row = random_ids(5)
    ids, mask = torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)
    real = slice(3, 8) if side == "left" else slice(0, 5)
    ids[0, real], mask[0, real] = row, 1
    logits = model(ids, attention_mask=mask).logits[0, real]
    torch.testing.assert_close(logits, plain_logits(model, row), rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_stands_in_padding_and_holes_changes_nothing():
    model = tiny_model()
    ids = random_ids(2, 8)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1, 0, 0]])
    other = torch.where(mask.bool(), ids, (ids + 5) % VOCAB)
    logits = model(ids, attention_mask=mask).logits
    assert torch.equal(logits, model(other, attention_mask=mask).logits)
    alone = plain_logits(model, ids[0][mask[0].bool()])
    torch.testing.assert_close(logits[0][mask[0].bool()], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", BUILT_IN_CELLS)
@torch.no_grad()
def test_memory_after_x3_sees_x0_to_x3_and_never_x4(cell):
    model = tiny_model(cell)
    ids = random_ids(1, 5)
    logits = model(ids).logits[0]
    memory = memory_of(model(ids[:, :4]).cache)
    hidden = model.model.readout(memory)
    torch.testing.assert_close(logits[3], model.lm_head(hidden)[0, 0], rtol=0, atol=1e-5)
    for t in range(5):
        other = ids.clone()
        other[0, t] = (other[0, t] + 1) % VOCAB
        moved = (model(other).logits[0] - logits).abs().amax(-1)
        assert (moved[:t] == 0).all()
        assert (moved[t:4] > 1e-6).all()


@torch.no_grad()
def test_the_first_logits_come_from_one_step_from_the_initial_memory():
    model = tiny_model()
    before = model(random_ids(1, 3)).logits
    model.model.initial_memory.copy_(torch.randn_like(model.model.initial_memory))
    assert (model(random_ids(1, 3)).logits - before).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("kept", [1, 3, 40, 70, 90, 200])
@torch.no_grad()
def test_logits_to_keep_n_equals_the_last_n_also_across_inner_chunks(kept):
    model = tiny_model()
    ids = random_ids(2, 90)
    mask = torch.ones_like(ids)
    mask[0, :13] = 0
    everything = model(ids, attention_mask=mask)
    last = model(ids, attention_mask=mask, logits_to_keep=kept)
    torch.testing.assert_close(last.logits, everything.logits[:, -kept:])
    torch.testing.assert_close(memory_of(last.cache), memory_of(everything.cache))


@torch.no_grad()
def test_logits_to_keep_tensor_picks_those_positions():
    model = tiny_model()
    ids, positions = random_ids(2, 9), torch.tensor([7, 0, 3])
    logits = model(ids, logits_to_keep=positions).logits
    torch.testing.assert_close(logits, model(ids).logits[:, positions])


@torch.no_grad()
def test_logits_to_keep_spares_the_readouts_that_nobody_reads():
    model = tiny_model()
    rows: list[int] = []
    model.model.readout.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[0]))
    model(random_ids(2, 90), logits_to_keep=1)
    assert rows == [2]


@torch.no_grad()
def test_inputs_embeds_equal_input_ids():
    model = tiny_model()
    ids = random_ids(2, 6)
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model(inputs_embeds=embeds).logits, model(ids).logits)


@torch.no_grad()
def test_base_model_and_head_compose_to_the_language_model():
    model = tiny_model()
    ids = random_ids(2, 6)
    hidden = model.base_model(ids).last_hidden_state
    assert torch.equal(model.get_output_embeddings()(hidden), model(ids).logits)


@torch.no_grad()
def test_tuple_output_holds_the_same_logits():
    model = tiny_model()
    ids = random_ids(2, 6)
    assert torch.equal(model(ids, return_dict=False)[0], model(ids).logits)


@torch.no_grad()
def test_without_use_cache_no_state_is_returned():
    assert tiny_model()(random_ids(1, 3), use_cache=False).cache is None


def hand_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of −log p(target) over targets that are not −100; logits (B, T, V), aligned targets (B, T)."""
    losses = []
    for row, row_targets in zip(logits, targets, strict=True):
        for scores, target in zip(row, row_targets, strict=True):
            if target != -100:
                losses.append(scores.exp().sum().log() - scores[target])
    return torch.stack(losses).mean()


@torch.no_grad()
def test_loss_is_the_mean_cross_entropy_of_the_next_token_without_ignored_ones():
    model = tiny_model()
    ids = random_ids(2, 7)
    labels = ids.clone()
    labels[0, 2:4] = labels[1, 6] = -100
    out = model(ids, labels=labels)
    aligned = F.pad(labels[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(out.loss, hand_loss(out.logits, aligned))
    plain = model(ids, labels=ids).loss
    torch.testing.assert_close(plain, hand_loss(out.logits[:, :-1], ids[:, 1:]))


@torch.no_grad()
def test_shift_labels_are_labels_already_aligned():
    model = tiny_model()
    ids = random_ids(2, 7)
    aligned = F.pad(ids[:, 1:], (0, 1), value=-100)
    loss = model(ids, labels=ids).loss
    torch.testing.assert_close(model(ids, shift_labels=aligned).loss, loss)
    aligned[:, -1] = 4  # a target after the last token, which unshifted labels cannot give
    expected = hand_loss(model(ids).logits, aligned)
    torch.testing.assert_close(model(ids, shift_labels=aligned).loss, expected)


@torch.no_grad()
def test_the_kept_logits_are_judged_by_shift_labels_alone():
    model = tiny_model()
    ids = random_ids(2, 7)
    targets = ids[:, -2:].contiguous()
    out = model(ids, shift_labels=targets, logits_to_keep=2)
    torch.testing.assert_close(out.loss, hand_loss(out.logits, targets))
    state = model(ids).cache
    for kept in (2, torch.tensor([5, 0])):
        with pytest.raises(ValueError, match=r"logits_to_keep is .* labels are of all tokens") as error:
            model(ids, labels=ids, logits_to_keep=kept, cache=state)
        assert is_one_sentence(error.value)
    assert state.get_seq_length() == 7  # refused before anything is read


@torch.no_grad()
def test_shift_labels_count_instead_of_labels():
    """The shared tests of `transformers` ask for it: code that cuts rows over devices gives both."""
    model, ids = tiny_model(), random_ids(2, 7)
    shifted = random_ids(2, 7, seed=5)
    expected = model(ids, shift_labels=shifted).loss
    assert torch.equal(model(ids, labels=ids, shift_labels=shifted).loss, expected)


@torch.no_grad()
def test_num_items_in_batch_divides_the_summed_loss():
    model = tiny_model()
    ids = random_ids(2, 7)
    loss = model(ids, labels=ids, num_items_in_batch=torch.tensor(5)).loss
    torch.testing.assert_close(loss, model(ids, labels=ids).loss * 12 / 5)


@pytest.mark.parametrize("arguments", [{}, {"input_ids": 1, "inputs_embeds": 1}])
def test_neither_or_both_kinds_of_input_is_an_error(arguments):
    model = tiny_model()
    given = {"input_ids": random_ids(1, 2), "inputs_embeds": torch.zeros(1, 2, 16)}
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds") as error:
        model(**{name: given[name] for name in arguments})
    assert is_one_sentence(error.value)


def test_an_empty_input_is_an_error():
    nothing = torch.zeros(1, 0, dtype=torch.long)
    for call in (tiny_model(), lambda ids: generate(tiny_model(), ids, max_new_tokens=2)):
        with pytest.raises(ValueError, match="no tokens") as error:
            call(nothing)
        assert is_one_sentence(error.value)
