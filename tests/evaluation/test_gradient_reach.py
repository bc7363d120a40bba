# Keyword dictionaries of mixed values.
# mypy: disable-error-code="arg-type"
"""The gradient's reach against finite differences, and what it must show."""

import pytest
import torch
import torch.nn.functional as F
from test_free_running import SHARED, tiny_model

from smt_hf.evaluation.gradient_reach import bptt_gradient_reach, smt_gradient_reach
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.runs.arguments import ENCODER_TYPES

X = torch.randint(0, 11, (3, 6), generator=torch.Generator().manual_seed(3))
Y = torch.tensor([1, 4, 9])


def tiny_teacher(**options) -> SMTTeacher:
    torch.manual_seed(4)
    return SMTTeacher(SMTTeacherConfig(**SHARED, num_hidden_layers=1, context_length=8, **options)).eval()


@torch.no_grad()
def finite_differences(loss_of, embeds: torch.Tensor, step: float = 1e-2) -> list[float]:
    """Central differences of every entry; the step is large because a memory is float32."""
    gradient = torch.zeros_like(embeds)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in embeds.shape)).tolist():
        moved = torch.zeros_like(embeds)
        moved[tuple(index)] = step
        gradient[tuple(index)] = (loss_of(embeds + moved) - loss_of(embeds - moved)) / (2 * step)
    norms = gradient.norm(dim=-1).mean(0)
    return (norms / norms[-1]).flip(0).tolist()


@pytest.mark.parametrize("cell", ["gru", "mlp"])
def test_bptt_reach_equals_finite_differences(cell):
    model = tiny_model(cell).double()

    def loss_of(embeds):
        return F.cross_entropy(model(inputs_embeds=embeds).logits[:, -1], Y, reduction="sum")

    expected = finite_differences(loss_of, model.model.embed_tokens(X).detach())
    assert bptt_gradient_reach(model, X, Y) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("encoder_type", [name for name in ENCODER_TYPES if name != "given"])
def test_smt_reach_equals_finite_differences(encoder_type, monkeypatch):
    teacher = tiny_teacher(encoder_type=encoder_type).double()
    plain = teacher.embed_tokens.forward

    def loss_of(embeds):
        with monkeypatch.context() as patch:
            patch.setattr(teacher.embed_tokens, "forward", lambda _ids: embeds)
            logits = teacher.decode(teacher.encode(X, [X.shape[1] - 1])[:, 0])[:, 0]
        return F.cross_entropy(logits, Y, reduction="sum")

    expected = finite_differences(loss_of, plain(X).detach())
    assert smt_gradient_reach(teacher, X, Y) == pytest.approx(expected, rel=5e-3)
    assert not teacher.embed_tokens._forward_hooks


def test_a_cell_that_forgets_has_no_reach():
    model = tiny_model("gru")
    model.model.cell = Forgetful()
    assert bptt_gradient_reach(model, X, Y)[1:] == [0.0] * 5


class Forgetful(torch.nn.Module):
    """Knows only the last token."""

    def project_inputs(self, embeds):
        return embeds

    def forward(self, memory, x):
        return F.normalize(x, dim=-1)[:, None].expand_as(memory) + 0 * memory.detach()
