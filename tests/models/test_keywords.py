"""No keyword of `forward` vanishes: each changes the answer, says nothing by agreement, or is refused."""

from typing import Any

import pytest
import torch
from tiny_models import generate, is_one_sentence, random_ids, tiny_model

from smt_hf.models.keywords import WITH_ONE_VALUE, WITHOUT_EFFECT, LossKeywords, RowKeywords


def test_these_keywords_are_known_and_no_others():
    """A name added here is a promise to callers of every later version."""
    rows = {"position_ids", "seq_idx", "cu_seq_lens_q", "output_hidden_states"}
    assert RowKeywords.__annotations__.keys() == rows
    assert LossKeywords.__annotations__.keys() == rows | {"shift_labels", "num_items_in_batch"}
    assert {"cu_seq_lens_k", "max_length_q", "max_length_k", "token_type_ids"} == WITHOUT_EFFECT
    assert WITH_ONE_VALUE == {"output_attentions": False, "output_router_logits": False, "is_causal": True}


@pytest.mark.parametrize(
    "keyword", ["state", "cache_params", "past_key_value", "cache_position", "encoder_mask"]
)
@pytest.mark.parametrize("base", [False, True])
def test_an_unknown_keyword_is_refused_by_its_name(keyword, base):
    model: Any = tiny_model().model if base else tiny_model()
    with pytest.raises(TypeError) as error:
        model(random_ids(1, 3), **{keyword: torch.zeros(1)})
    assert is_one_sentence(error.value, repr(keyword), "position_ids")


def test_the_base_model_has_no_loss_and_refuses_its_keywords():
    with pytest.raises(TypeError, match="'num_items_in_batch'"):
        tiny_model().model(random_ids(1, 3), num_items_in_batch=2)


@pytest.mark.parametrize(
    "keywords",
    [
        *({name: None} for name in ("encoder_outputs", *WITH_ONE_VALUE, *RowKeywords.__annotations__)),
        *({name: value} for name, value in WITH_ONE_VALUE.items()),
        *({name: torch.zeros(2, 4)} for name in sorted(WITHOUT_EFFECT)),
        # What peft passes with every call.
        {"output_attentions": None, "output_hidden_states": None, "return_dict": None},
    ],
    ids=lambda keywords: "-".join(keywords),
)
@torch.no_grad()
def test_what_callers_pass_as_a_matter_of_course_changes_nothing(keywords):
    model, ids = tiny_model(), random_ids(2, 4)
    for each in (model, model.model):
        assert torch.equal(each(ids, **keywords)[0], each(ids)[0])


@pytest.mark.parametrize("name", WITH_ONE_VALUE)
def test_what_a_memory_cannot_do_is_refused(name):
    value = not WITH_ONE_VALUE[name]
    with pytest.raises(ValueError) as error:
        tiny_model()(random_ids(1, 3), **{name: value})
    assert is_one_sentence(error.value, f"{name}={value}")


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4, 4), (4,)])
def test_a_mask_that_is_not_rows_by_tokens_is_refused(shape):
    with pytest.raises(ValueError) as error:
        tiny_model()(random_ids(2, 4), attention_mask=torch.ones(shape))
    assert is_one_sentence(error.value, shape)


def test_generate_refuses_what_forward_would(caplog):
    model = tiny_model()
    for keywords in ({"foo": 1}, {"seq_idx": torch.zeros(1, 4)}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            generate(model, random_ids(1, 4), max_new_tokens=3, do_sample=False, **keywords)


@pytest.mark.parametrize("where", ["argument", "config"])
@torch.no_grad()
def test_a_tuple_is_returned_by_both_classes_where_it_is_asked_for(where):
    model, ids = tiny_model(), random_ids(2, 4)
    expected = [model(ids).logits, model.model(ids).last_hidden_state]
    model.config.return_dict = where != "config"
    keywords: dict[str, Any] = {"return_dict": False} if where == "argument" else {}
    for each, first in zip((model, model.model), expected, strict=True):
        found = each(ids, **keywords)
        assert type(found) is tuple and len(found) == 2
        assert torch.equal(found[0], first)
        assert found[1].get_seq_length() == 4
