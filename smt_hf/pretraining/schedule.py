"""What depends on how far a run has come: learning rate, sequence length, and where a step looks.

Everything is a function of progress (0 … 1, in steps or in time) or of (seed, step), so a resumed run
needs no state of its own, and a budget in minutes schedules like a budget in steps.
"""

import math
import random
from typing import NamedTuple

from smt_hf.runs.arguments import SMTPretrainingArguments

# Share of SMT steps spent on each end of the sequence, the empty and the whole context: a uniform draw
# over T timesteps would hardly ever train the cold start, or an answer asked for at the very end.
END_SHARE = 0.1


class Phase(NamedTuple):
    """A stretch of a run, start … end in progress. grows: whether its rows grow by the length curriculum."""

    name: str
    start: float
    end: float
    learning_rate: float
    grows: bool = True


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

    Rounding to steps keeps the number of different shapes small.
    """
    start = args.curriculum_start_length
    if start is None or start >= full or not phase.grows or args.curriculum_fraction == 0:
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
