"""The equations on one page. Each objective maps a batch to (loss, parts of it as detached scalars).

A batch holds `input_ids` x (B, T) and aligned targets `shift_labels` y (B, T), −100 where there is nothing
to predict. Index everything by the last token read: m_3 has seen x_0 … x_3, and predicts y_3.
Cross-entropies are in nats per target. Source: Kumar & Isola 2026, unless said otherwise.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.runs.arguments import SMTPretrainingArguments as Defaults

from .rollout import sequential_rollout, sweep_rollout, unroll
from .teacher import SMTTeacher

Batch = dict[str, Any]
Parts = dict[str, torch.Tensor]

# The error of a memory at which DMT's loss begins to level off; 2 is that of unrelated memories.
DMT_ERROR_SCALE = 0.3
# Pairs grow with the square of the sample; 512 memory tokens are what the official code draws.
UNIFORMITY_SAMPLE = 512


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the targets that are not −100; 0 (not NaN) when there is none."""
    loss = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=-100, reduction="sum")
    return loss / (targets != -100).sum().clamp(min=1)


def timesteps_asked(targets: torch.Tensor) -> torch.Tensor | slice:
    """The columns of targets (B, n) in which some row has one; the first if none has, a slice if all have.

    Only what is asked for need be read out, and most tasks ask for little: a DMT step of reverse copy
    spends two fifths of its time on readouts. An accelerator gets all columns, since looking would make the
    host wait at every step. So does a compiled step, whose shapes would depend on the data.
    """
    if targets.device.type != "cpu" or torch.compiler.is_compiling():
        return slice(None)
    asked = (targets != -100).any(0)
    if asked.all():
        return slice(None)  # a view, where an index would copy every memory
    return asked.nonzero().flatten() if asked.any() else torch.zeros(1, dtype=torch.long)


def dynamics_loss(memory_pred: torch.Tensor, memory_target: torch.Tensor) -> torch.Tensor:
    """L_dyn = mean of (f_θ(m_t, x_{t+1}) − m_{t+1})² over all memory entries.

    Both (…, K, D) float32 and RMS-normalised: unitless, 0 for a perfect cell, 2 for unrelated memories.
    """
    return F.mse_loss(memory_pred, memory_target)


def answer_loss(
    logits: torch.Tensor, targets: torch.Tensor, soft: torch.Tensor | None, weight: float
) -> torch.Tensor:
    """(1 − w) · cross-entropy of the targets + w · KL(p ‖ q), in nats per target; cross-entropy without `soft`.

    logits (…, V) of q; targets (…), −100 where there is none; soft (…, V): log p, what a given teacher says
    (Hinton, Vinyals & Dean 2015, at temperature 1). Both terms are means over the same targets.
    """
    loss = cross_entropy(logits, targets)
    if soft is None or not weight:
        return loss
    given = (targets != -100).flatten()
    log_q = F.log_softmax(logits.flatten(0, -2).float(), dim=-1)
    divergence = F.kl_div(log_q, soft.flatten(0, -2).float(), reduction="none", log_target=True).sum(-1)
    return (1 - weight) * loss + weight * (divergence * given).sum() / given.sum().clamp(min=1)


def label_readout_loss(
    teacher: SMTTeacher,
    memory: torch.Tensor,
    answers: torch.Tensor,
    soft: torch.Tensor | None = None,
    weight: float = 0.0,
) -> torch.Tensor:
    """`answer_loss` of y_t from each m_t alone, by the decoder; memory (B, n, K, D), answers (B, n)."""
    asked = timesteps_asked(answers)
    logits = teacher.decode(memory[:, asked].flatten(0, 1))
    said = None if soft is None else soft[:, asked].flatten(0, 1)
    return answer_loss(logits, answers[:, asked].flatten(), said, weight)


def imitation_loss(error: torch.Tensor) -> torch.Tensor:
    """The mean over memories of e / (1 + e/s), e the mean squared error of one and s = 0.3 (Geman–McClure).

    error (…): each memory's mean squared error. Where errors are much smaller than s the loss is their mean,
    and it is never more than s. Memories that have drifted away for good thus do not outweigh those that can
    still be kept.
    """
    return (error / (1 + error / DMT_ERROR_SCALE)).mean()


@torch.compiler.disable
def of_all_processes(memory: torch.Tensor) -> torch.Tensor:
    """memory (B, …) of each of W processes → (W·B, …), for a loss that is the same on all of them.

    Only one's own part has a gradient, W-fold: DDP takes the mean over processes, of which each has only its
    part of what the loss asks for. So nothing is sent in the backward pass.
    """
    mine = memory.detach().contiguous()
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    parts[dist.get_rank()] = memory + (len(parts) - 1) * (memory - mine)  # its value is that of `mine`
    return torch.cat(parts)


def uniformity_loss(memory: torch.Tensor) -> torch.Tensor:
    """L_unif = log E exp(−2‖u_a − u_b‖²) over pairs a ≠ b of unit-normalised memory tokens.

    memory (B, K, D). Between −8 (all opposite) and 0 (all equal). Under several processes the pairs are
    those of the global batch, so that the number of processes does not change the objective.
    """
    if dist.is_available() and dist.is_initialized():
        memory = of_all_processes(memory)
    tokens = F.normalize(memory.flatten(0, 1), dim=-1)
    # Evenly spaced rather than drawn: batches are random already, and this needs no generator.
    tokens = tokens[:: -(-len(tokens) // UNIFORMITY_SAMPLE)]
    squared_distance = 2 - 2 * tokens @ tokens.T
    others = ~torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
    exponents = (-2 * squared_distance).masked_fill(~others, float("-inf"))
    return torch.logsumexp(exponents.flatten(), dim=0) - torch.log(others.sum())


def trunk_loss(teacher: SMTTeacher, batch: Batch) -> tuple[torch.Tensor, Parts]:
    """Cross-entropy of y_t at every token of the causal trunk that the context holds: an ordinary Transformer.

    Labels of a trunk that knows the text are worth something from the first step of SMT.
    """
    x = batch["input_ids"][:, : teacher.config.context_length]
    loss = cross_entropy(teacher.read_out(teacher.read(x)[-1]), batch["shift_labels"][:, : x.shape[1]])
    return loss, {"trunk_loss": loss.detach()}


def smt_loss(
    model: SMTForCausalLM,
    teacher: SMTTeacher,
    batch: Batch,
    timestep: int,
    num_labels: int = 2,
    predict_from: int | None = None,
    prediction_weight: float = Defaults.prediction_weight,
    dynamics_weight: float = Defaults.dynamics_weight,
    uniformity_weight: float = Defaults.uniformity_weight,
    readout_weight: float = Defaults.readout_weight,
    cell_readout_weight: float = Defaults.cell_readout_weight,
    trunk_weight: float = Defaults.trunk_weight,
    detach_labels: bool = False,
    teacher_weight: float = 0.0,
) -> tuple[torch.Tensor, Parts]:
    """Supervised Memory Training on n = `num_labels` consecutive labels, the timestep t ≥ −1 among them.

    L = L_pred + 0.1 L_dyn + 0.001 L_unif + L_read + 0 L_cell + L_trunk, by the weights' defaults
    L_pred: cross-entropy of the decoder on y_t … y_{t+F−1} given m_t (as many as the sequence holds).
    `predict_from`, ≥ −1, is the t of L_pred if it is given; its label is encoded too where it is not among
    the n.
    L_dyn: the n − 1 transitions between the labels, each from the teacher's memory, m_s → m_{s+1}.
    L_unif: uniformity of the labels.
    L_read: cross-entropy of y_s from m_s alone, at all n labels. The RNN will have to do this.
    L_cell: cross-entropy of y_{s+1} from f_θ(m_s, x_{s+1}), the n − 1 memories that the cell makes. It
    reaches the encoder too, because the cell may be unable to answer from a label that the teacher can read.
    L_trunk: cross-entropy of y_s at every token that the causal trunk reads.
    teacher_weight: share of L_read and L_cell that goes to the soft targets of the batch, if it has some.
    detach_labels: L_dyn trains the cell alone. Otherwise it trains the encoder too, which learns labels that
    a cell can follow. The parts are returned without their weights.
    The cell is never unrolled: no gradient path between two tokens is longer than one application.

    The paper has n = 2, L_pred, L_dyn and L_unif. Deviations: t may be −1, so that the RNN can start cold.
    L_read and L_trunk make memories readable many times sooner, since the first target is 1/F of L_pred, and
    L_pred sees one label of a sequence. `predict_from` is for rows whose answers all come at the end: few
    uniform t teach what the label at the end of the prompt must hold.
    """
    x, y = batch["input_ids"], batch["shift_labels"]
    # Nothing has been read yet at t = −1, and nothing is asked for: y_{−1} = −100. So y_t = targets[t + 1].
    targets = F.pad(y, (1, 0), value=-100)
    context = min(x.shape[1], teacher.config.context_length)
    first = max(-1, min(timestep, context - num_labels))
    window = range(first, min(first + num_labels, context))
    timestep = timestep if predict_from is None else predict_from
    others = [] if window.start <= timestep < window.stop else [timestep]
    labels, trunk = teacher.encode_with_trunk(x, [*window, *others], batch.get("hidden_states"))
    predictor = labels[:, len(window) if others else timestep - first]
    labels = labels[:, : len(window)]

    end = timestep + teacher.config.future_length
    prediction = cross_entropy(
        teacher.decode(predictor, x[:, timestep + 1 : end]), targets[:, timestep + 1 : end + 1]
    )
    answers = targets[:, first + 1 : first + 1 + len(window)]
    soft = batch.get("soft_targets")
    if soft is not None:
        soft = F.pad(soft, (0, 0, 1, 0))[:, first + 1 : first + 1 + len(window)]
    readout = label_readout_loss(teacher, labels, answers, soft, teacher_weight)

    cell = model.model.cell
    inputs = cell.project_inputs(model.model.embed_tokens(x[:, first + 1 : first + len(window)]))
    taught = labels.detach() if detach_labels else labels
    memory_pred = cell(taught[:, :-1].flatten(0, 1), inputs.flatten(0, 1))
    memory_pred = memory_pred.view_as(taught[:, 1:])
    dynamics = dynamics_loss(memory_pred, taught[:, 1:])
    uniformity = uniformity_loss(labels[:, -1])  # not labels[:, 0], which may be m_∅ in every row

    loss = prediction_weight * prediction + dynamics_weight * dynamics
    loss = loss + uniformity_weight * uniformity + readout_weight * readout
    parts = {
        "prediction_loss": prediction,
        "dynamics_loss": dynamics,
        "uniformity_loss": uniformity,
        "readout_loss": readout,
    }
    if cell_readout_weight:
        parts["cell_readout_loss"] = label_readout_loss(
            teacher, memory_pred, answers[:, 1:], None if soft is None else soft[:, 1:], teacher_weight
        )
        loss = loss + cell_readout_weight * parts["cell_readout_loss"]
    if trunk is not None:
        parts["trunk_loss"] = cross_entropy(teacher.read_out(trunk), y[:, : trunk.shape[1]])
        loss = loss + trunk_weight * parts["trunk_loss"]
    return loss, {name: value.detach() for name, value in parts.items()}


def dmt_loss(
    model: SMTForCausalLM,
    teacher: SMTTeacher,
    batch: Batch,
    start: int,
    rollout_length: int,
    num_sweeps: int = 0,
    label_every: int = 1,
    gradient_steps: int = 1,
    offset: int = 0,
    imitation_weight: float = Defaults.dmt_imitation_weight,
    teacher_weight: float = 0.0,
) -> tuple[torch.Tensor, Parts]:
    """On-policy imitation over a window of R = `rollout_length` tokens after timestep `start` = s ≥ −1.

    Roll the cell out on its own memories m̂ from the teacher's m_s, without gradient; then in one batched
    pass train f_θ(m̂_t, x_{t+1}) → m_{t+1} and the readout of the result:
    L = 10 · `imitation_loss` + cross-entropy of y_{t+1}. The teacher is frozen: its labels carry no gradient.
    num_sweeps: 0 rolls out sequentially, P > 0 by P parallel sweeps (ours; see `rollout`).
    label_every: train only every n-th step of the window, from the `offset`-th on, and roll the others out.
    The official code has n = 16.
    gradient_steps: train k steps in a row instead of one, through which the gradient goes back: the cell starts
    from m̂ and keeps its own k memories. Where n < k these stretches follow one another; what is left of the
    window behind the last whole one is not trained.
    imitation_weight: the paper's best is 10.
    teacher_weight: share of the cross-entropy that goes to the soft targets of the batch, if it has some.

    Deviations: the paper's L is 10 · L_dyn + cross-entropy, where every error counts in full. Its
    cross-entropy trains the readout alone; ours reaches the cell too, through the k applications. m̂_t is
    detached, so with k = 1 no gradient goes back through time. The cell may become better than its teacher
    (studies/LOG.md).
    """
    x, y = batch["input_ids"], batch["shift_labels"]
    window = slice(start + 1, start + 1 + rollout_length)
    first = range(offset, rollout_length - gradient_steps + 1, max(label_every, gradient_steps))
    taught = [step + i for step in first for i in range(gradient_steps)]
    num_sweeps = min(num_sweeps, rollout_length - gradient_steps)
    # Where the path to each first step begins; each taught step ends at the next timestep's label.
    begins = [max(0, step - num_sweeps) for step in first] if num_sweeps else [0]
    ends = [step + 1 for step in taught]
    timesteps = sorted({*begins, *ends})
    with torch.no_grad():
        labels = teacher.encode(x, [start + i for i in timesteps], batch.get("hidden_states"))
    memory_start, memory_target = (labels[:, [timesteps.index(i) for i in at]] for at in (begins, ends))

    cell = model.model.cell
    inputs = cell.project_inputs(model.model.embed_tokens(x[:, window]))
    chosen, starts = (torch.tensor(list(steps), device=x.device) for steps in (taught, first))
    if num_sweeps:
        memories = sweep_rollout(cell, memory_start, inputs, starts, num_sweeps)
    else:
        last = rollout_length - gradient_steps  # at most; no stretch begins behind it
        memories = sequential_rollout(cell, memory_start[:, 0], inputs[:, : last + 1])[:, starts]
    memory_pred = unroll(cell, memories, inputs[:, chosen].unflatten(1, (len(first), gradient_steps)))
    error = (memory_pred - memory_target).pow(2).mean((-2, -1))
    answers = y[:, window][:, chosen]
    asked = timesteps_asked(answers)
    logits = model.lm_head(model.model.read_out(memory_pred[:, asked]))
    soft = batch.get("soft_targets")
    said = None if soft is None else soft[:, window][:, chosen][:, asked]
    readout = answer_loss(logits, answers[:, asked], said, teacher_weight)

    parts = {"dynamics_loss": error.mean(), "readout_loss": readout, "drift": error[:, -1].mean()}
    loss = imitation_weight * imitation_loss(error) + readout
    return loss, {name: value.detach() for name, value in parts.items()}


def bptt_loss(model: SMTForCausalLM, batch: Batch, teacher_weight: float = 0.0) -> tuple[torch.Tensor, Parts]:
    """The baseline: `answer_loss` through the cell unrolled over the whole sequence, from m_∅."""
    asked = timesteps_asked(batch["shift_labels"])
    keep = 0 if isinstance(asked, slice) else asked  # 0 is all, in `transformers`
    logits = model(input_ids=batch["input_ids"], use_cache=False, logits_to_keep=keep).logits
    soft = batch.get("soft_targets")
    said = None if soft is None else soft[:, asked]
    loss = answer_loss(logits, batch["shift_labels"][:, asked], said, teacher_weight)
    return loss, {"readout_loss": loss.detach()}
