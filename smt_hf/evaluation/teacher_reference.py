"""What the teacher's labels say: of the next token, and of all answers that follow a prompt."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from .free_running import by_horizon

# Labels of one call. The attention grows with their square.
LABELS = 128


@torch.no_grad()
def evaluate_teacher(teacher: Any, input_ids: torch.Tensor, shift_labels: torch.Tensor) -> dict[str, Any]:
    """As `evaluate_rows`, but the teacher's own readout reads its own label at every timestep.

    input_ids, shift_labels (B, T). Only timesteps within the teacher's `context_length` are judged, and only
    those are encoded at which some row has a target. No cell takes part, so nothing drifts.
    """
    length = min(input_ids.shape[1], teacher.config.context_length)
    x, y = input_ids[:, :length], shift_labels[:, :length]
    losses, hits = (torch.zeros(y.shape, dtype=torch.float64) for _ in range(2))
    asked = (y != -100).any(0).nonzero()[:, 0]
    for timesteps in asked.split(LABELS):
        labels = teacher.encode(x, timesteps.tolist())
        logits = teacher.decode(labels.flatten(0, 1)).view(*labels.shape[:2], -1).float()
        targets = y[:, timesteps]
        loss = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
        losses[:, timesteps.cpu()] = loss.double().cpu()
        hits[:, timesteps.cpu()] = (logits.argmax(-1) == targets).double().cpu()
    return by_horizon(losses.sum(0), hits.sum(0), (y != -100).sum(0).double().cpu())


@torch.no_grad()
def evaluate_prompt(
    model: Any, teacher: Any, input_ids: torch.Tensor, shift_labels: torch.Tensor
) -> dict[str, float] | None:
    """What the label at the end of the prompt, m_q, is worth; input_ids, shift_labels (B, T).

    The prompt x_0 … x_q is all tokens before the one at which the first answer, y_{q+1}, is due.
    `evaluate_teacher` asks for each answer when it is due, so the encoder may look it up in the context. A
    cell has only its memory.

    Returns `prompt_length` q + 1 in tokens, and two accuracies on the answers y_{q+1} … y_{q+F−1} by the
    teacher's `future_length` F: `label_holds`, of the decoder given m_q and the tokens in between (which may
    tell of the answers too, as later pairs of `modular` do), and `from_label`, of the cell that starts from m_q
    and goes on by itself. None where rows have no prompt or prompts of different lengths, where the prompt is
    longer than the teacher's context, or where F = 1 leaves no answer.
    """
    first = (shift_labels != -100).int().argmax(1)  # 0 as well where there is none
    prompt = int(first[0])
    reach, future = teacher.config.context_length, teacher.config.future_length
    if (first != prompt).any() or not 0 < prompt <= reach or future < 2:
        return None
    end = min(input_ids.shape[1], prompt + future - 1)
    following, answers = input_ids[:, prompt:end], shift_labels[:, prompt:end]
    label = teacher.encode(input_ids[:, :prompt], [prompt - 1])[:, 0]
    said = teacher.decode(label, following)[:, 1:]
    state: Any = DynamicCache(config=model.config)
    state.layers[0].write(label, prompt)
    went_on = model(input_ids=following, cache=state).logits

    def accuracy(logits: torch.Tensor) -> float:
        judged = answers != -100
        return (logits.argmax(-1) == answers)[judged].double().mean().item()

    return {"prompt_length": prompt, "label_holds": accuracy(said), "from_label": accuracy(went_on)}
