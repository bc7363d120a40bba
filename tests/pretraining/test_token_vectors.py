"""A model that learns from a given one starts from its token vectors, narrowed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_soft_targets import causal_lm, save_teacher, spec
from tiny_training import tiny_llama, tiny_student

from smt_hf import build, load_example
from smt_hf.pretraining.fitting import unused
from smt_hf.pretraining.soft_targets import SoftTargets
from smt_hf.pretraining.token_vectors import start_from

PARTS = ("get_input_embeddings", "get_output_embeddings")


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 100, encoding="utf-8")
    return str(path)


def weights(model: Any) -> list[torch.Tensor]:
    return [getattr(model, part)().weight.detach() for part in PARTS]


def likeness(vectors: torch.Tensor) -> torch.Tensor:
    """Inner products of all pairs of tokens around their mean, as a share of their size."""
    centred = vectors.double() - vectors.double().mean(0)
    products = centred @ centred.T
    return products / products.norm()


@pytest.mark.parametrize("given_width", [8, 16, 32])
def test_tokens_are_as_alike_as_in_the_given_model_as_far_as_the_width_allows(given_width):
    given, student = tiny_llama(hidden_size=given_width), tiny_student()
    width = student.config.hidden_size
    drawn = [weight.clone() for weight in weights(student)]
    start_from(SoftTargets(given, 11), student)
    for theirs, before, now in zip(weights(given), drawn, weights(student), strict=True):
        kept = min(width, given_width)
        # Independently: the nearest matrix of that rank, by Eckart and Young.
        u, s, v = torch.linalg.svd(theirs[:11].double() - theirs[:11].double().mean(0), full_matrices=False)
        nearest = u[:, :kept] * s[:kept] @ v[:kept]
        torch.testing.assert_close(likeness(now[:, :kept]), likeness(nearest), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(now[:, :kept].std(), before.std(), rtol=1e-4, atol=0)
        assert torch.equal(now[:, kept:], before[:, kept:])


@pytest.mark.parametrize("method", ["smt", "bptt"])
def test_a_run_starts_there_unless_told_otherwise_and_draws_all_else_as_before(tmp_path, text, method):
    folder = save_teacher(tmp_path / "teacher", causal_lm("llama"))
    plain = build(spec(tmp_path, text, folder, method=method, teacher_embeddings=False))
    trainer = build(spec(tmp_path, text, folder, method=method))
    for one, other in ((plain.model, trainer.model), (plain.teacher, trainer.teacher)):
        if one is None or other is None:
            assert method == "bptt"
            continue
        now = other.state_dict()
        changed = {name for name, weight in one.state_dict().items() if not torch.equal(weight, now[name])}
        assert {name.split(".")[-2] for name in changed} == {"embed_tokens", "lm_head"}


def test_a_given_model_of_fewer_tokens_is_refused_as_ever():
    student = tiny_student(vocab_size=20)
    before = weights(student)[0].clone()
    start_from(SoftTargets(tiny_llama(), 20), student)
    assert torch.equal(weights(student)[0][11:], before[11:])
    with pytest.raises(ValueError, match="knows 11 token ids, and the model has 20"):
        SoftTargets(tiny_llama(), 20).check(torch.arange(8))


@pytest.mark.parametrize(
    ("weight", "embeddings", "heeded"), [(0.0, False, False), (0.0, True, True), (0.5, False, True)]
)
def test_a_teacher_of_whom_nothing_is_asked_is_told(tmp_path, text, weight, embeddings, heeded):
    asked = spec(
        tmp_path, text, "me/llama", method="bptt", teacher_weight=weight, teacher_embeddings=embeddings
    )
    assert any("teacher" in names for names in unused(asked).values()) != heeded


def test_the_model_of_the_package_is_a_teacher_by_its_name(tmp_path, text):
    asked = spec(tmp_path, text, "example", method="bptt", teacher_weight=0.0)
    given, _ = load_example()
    student = build(asked).model
    assert asked.teacher == "example" and student.config.vocab_size == given.config.vocab_size
    drawn = build(spec(tmp_path, text, "example", method="bptt", teacher_embeddings=False)).model
    start_from(SoftTargets(given), drawn)
    for one, other in zip(weights(student), weights(drawn), strict=True):
        torch.testing.assert_close(one, other)
