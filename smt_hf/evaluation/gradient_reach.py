"""How much a token at a distance changes the loss: the gradient that can teach to remember it.

B rows, T tokens. Norms are relative to the last token's, so that cells of different scales compare.
"""

import torch
import torch.nn.functional as F

from smt_hf.models.modeling_smt import SMTForCausalLM


def _by_distance(loss: torch.Tensor, embeds: torch.Tensor) -> list[float]:
    """Entry d: the mean over rows of ‖∂loss/∂embedding‖ at d tokens back, relative to the last token's."""
    (gradient,) = torch.autograd.grad(loss, embeds)
    norms = gradient.norm(dim=-1).mean(0).flip(0)
    return (norms / norms[0].clamp(min=torch.finfo(norms.dtype).tiny)).tolist()


def bptt_gradient_reach(model: SMTForCausalLM, input_ids: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """Through the unrolled cell: rows (B, T) from a cold start, targets (B,) of the last timestep.

    T values; entry d is the mean over rows of ‖∂loss_{T−1}/∂e(x_{T−1−d})‖, relative to d = 0. The path has
    d + 1 applications of the cell.
    """
    embeds = model.model.embed_tokens(input_ids).detach().requires_grad_()
    with torch.enable_grad():
        logits = model(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits[:, -1]
        # A sum: rows do not meet, so each keeps the gradient of its own loss.
        return _by_distance(F.cross_entropy(logits.float(), targets, reduction="sum"), embeds)


def smt_gradient_reach(teacher, input_ids: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """The same through the teacher: encoder to the label m_{T−1}, decoder to the target; T ≤ context_length.

    The path is as long for every d: the depth of the two networks.
    """
    embeds = []

    def cut(_module, _ids, out):
        embeds.append(out.detach().requires_grad_())
        return embeds[-1]

    hook = teacher.embed_tokens.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            memory = teacher.encode(input_ids, [input_ids.shape[1] - 1])[:, 0]
            logits = teacher.decode(memory)[:, 0]
            return _by_distance(F.cross_entropy(logits.float(), targets, reduction="sum"), embeds[0])
    finally:
        hook.remove()
