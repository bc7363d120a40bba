"""What depends on how far a run has come: phase, learning rate, sequence length, and the random draws.

Everything is a function of progress (0 … 1, in steps or in time) or of (seed, step), so a resumed run
needs no state of its own, and a budget in minutes schedules like a budget in steps.
"""

import math
import random
from typing import NamedTuple

from .arguments import SMTPretrainingArguments

# Share of SMT steps spent on each end of the sequence, the empty and the whole context: a uniform draw
# over T timesteps would hardly ever train the cold start, or an answer asked for at the very end.
END_SHARE = 0.1


class Phase(NamedTuple):
    name: str  # "smt", "dmt" or "bptt"
    start: float  # in progress
    end: float
    learning_rate: float


def phases(args: SMTPretrainingArguments) -> list[Phase]:
    if args.method == "bptt":
        return [Phase("bptt", 0.0, 1.0, args.learning_rate)]
    dmt_ends = 1 - args.bptt_fraction
    smt_ends = 1 - (args.dmt_fraction + args.bptt_fraction)
    shared = [
        Phase("smt", 0.0, smt_ends, args.learning_rate),
        Phase("dmt", smt_ends, dmt_ends, args.dmt_learning_rate),
        Phase("bptt", dmt_ends, 1.0, args.bptt_learning_rate),
    ]
    return [phase for phase in shared if phase.end - phase.start > 1e-9]  # fractions are rounded


def phase_progress(phase: Phase, progress: float) -> float:
    """Progress within the phase, 0 … 1."""
    return min(1.0, max(0.0, (progress - phase.start) / (phase.end - phase.start)))


def learning_rate(phase: Phase, progress: float, args: SMTPretrainingArguments) -> float:
    """Linear warm-up, a plateau, then linear decay to 0 at the end of the phase."""
    done = phase_progress(phase, progress)
    factor = 1.0
    if done < args.warmup_ratio:
        factor = max(done, 0.01) / args.warmup_ratio  # not 0, or the first step would do nothing
    if args.decay_ratio and done > 1 - args.decay_ratio:
        factor = min(factor, (1 - done) / args.decay_ratio)
    return phase.learning_rate * factor


def sequence_length(phase: Phase, progress: float, full: int, args: SMTPretrainingArguments) -> int:
    """Length curriculum: start · (full / start)^(done / curriculum_fraction), in about 12 % steps.

    Rounding to steps keeps the number of different shapes small. DMT always sees full length, and so does
    BPTT after it.
    """
    start = args.curriculum_start_length
    later = phase.name == "dmt" or phase.start > 0
    if start is None or start >= full or later or args.curriculum_fraction == 0:
        return full
    done = min(1.0, phase_progress(phase, progress) / args.curriculum_fraction)
    levels = max(1, round(6 * math.log2(full / start)))
    level = int(done * levels)
    return min(full, round(start * (full / start) ** (level / levels)))


def draw_timestep(rng: random.Random, context_length: int) -> int:
    """t of an SMT step, −1 … context_length − 1, the same for all rows and all processes."""
    draw = rng.random()
    if draw < END_SHARE:
        return -1
    if draw > 1 - END_SHARE:
        return context_length - 1
    return rng.randrange(context_length)


def draw_start(rng: random.Random, context_length: int, args: SMTPretrainingArguments) -> int:
    """s of a DMT window, so that its labels s … s + R fit into the context."""
    last = context_length - 1 - args.rollout_length
    draw = rng.random()
    if draw < args.cold_start_fraction:
        return -1
    if draw > 1 - END_SHARE:
        return last
    return rng.randrange(-1, last + 1)


def draws(
    phase: Phase,
    step: int,
    length: int,
    full_length: int,
    context_length: int,
    args: SMTPretrainingArguments,
    prompt_length: int = 0,
) -> tuple[dict[str, int], int]:
    """The random choices of a step, the same on every process, and its sequential depth.

    prompt_length: tokens before the first target, see `prompt_fraction`.
    Under a length curriculum batches have more rows, so rows have fewer labels: as many per step.

    The depth is the number of cell applications that have to wait for one another: one for SMT, whatever
    the sequence; T for BPTT; for DMT the rollout and one for the gradient pass.
    """
    if phase.name == "bptt":
        return {}, length
    rng = random.Random(f"{args.seed}-{step}")
    context = min(length, context_length)
    if phase.name == "smt":
        num_labels = max(2, args.num_labels * length // full_length)
        labels = {"timestep": draw_timestep(rng, context), "num_labels": num_labels}
        if rng.random() < args.prompt_fraction:
            labels["predict_from"] = min(prompt_length, context) - 1
        return labels, 1
    choices = {
        "start": draw_start(rng, context, args),
        "rollout_length": args.rollout_length,
        "num_sweeps": args.num_sweeps,
        "label_every": args.dmt_label_every,
        "offset": rng.randrange(args.dmt_label_every),
    }
    longest = args.rollout_length - 1
    return choices, 1 + (min(args.num_sweeps, longest) if args.num_sweeps else longest)
