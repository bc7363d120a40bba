"""Recipe: what an experiment trains, as arguments of `smt-hf pretrain`, and the runs that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]

# What the recipes of the synthetic tasks have in common; the reasons stand in docs/results.md.
TASK: dict[str, Any] = {
    "hidden-size": 64,  # 1 kB of state: the tasks are small, and steps cheap
    "num-encoder-layers": 2,  # two find a key and its value; four see half as many rows in the same time
    "num-readout-layers": 1,
    "eval-sequences": 256,
    "num-evaluations": 8,
}
TASK_SMT: dict[str, Any] = {
    "learning-rate": 2e-3,
    "num-labels": 16,  # answers are rare, so that more labels in a row meet one
    "dmt-fraction": 0.5,  # drift is the whole gap between teacher and free-running cell
    "dmt-learning-rate": 1.5e-3,
}
# The best of these is BPTT's result: from what a transformer cell bears to what a GRU likes best.
BPTT_LEARNING_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Length:
    """A training length. minutes: the budget of each run on one CPU core. arguments: those it needs."""

    minutes: float
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """SMT → DMT and BPTT of the same cells, on the same data, with equal budgets and the same curriculum.

    about: one line for `smt-hf experiment --help`.
    dataset, arguments: for both methods; smt, bptt: for one of them. Names are flags of `pretrain`.
    lengths: training lengths, shortest first, the one that is run unless more are asked for.
    tested: the lengths that a task is tested at, as multiples of the length trained.
    """

    about: str
    dataset: str
    lengths: Mapping[int, Length]
    cells: Sequence[str] = ("gru", "transformer")  # one with gates, one without
    arguments: Arguments = field(default_factory=lambda: TASK)
    smt: Arguments = field(default_factory=lambda: TASK_SMT)
    bptt: Arguments = field(default_factory=dict)
    bptt_learning_rates: Sequence[float] = BPTT_LEARNING_RATES
    tested: Sequence[int] = (1, 2, 4)


@dataclass(frozen=True)
class Run:
    """One run: the name of its folder, the recipe's length, its arguments, and the lengths to test it at."""

    name: str
    length: int
    arguments: Arguments
    tested: Sequence[int]

    @property
    def words(self) -> list[str]:
        """The command line of `smt-hf pretrain`, without the folder."""
        return [word for name, value in self.arguments.items() for word in (f"--{name}", f"{value}")]


def plan(
    recipe: Recipe,
    lengths: Sequence[int] | None = None,
    cells: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    max_minutes: float | None = None,
    learning_rates: Sequence[float] | None = None,
    changes: Arguments | None = None,
) -> list[Run]:
    """The runs of a recipe, SMT before BPTT; what is None is the recipe's.

    changes: arguments of `pretrain` that win over the recipe's, for both methods.
    A length that the recipe does not have takes the arguments and minutes of its longest one.
    """
    runs = []
    for length in lengths or [min(recipe.lengths)]:
        own = recipe.lengths.get(length, recipe.lengths[max(recipe.lengths)])
        for cell in cells or recipe.cells:
            for seed in seeds:
                methods: list[tuple[str, Arguments]] = [("smt", recipe.smt)]
                methods += [
                    ("bptt", {**recipe.bptt, "learning-rate": rate})
                    for rate in learning_rates or recipe.bptt_learning_rates
                ]
                for method, arguments in methods:
                    rate = f"-{arguments['learning-rate']:g}" if method == "bptt" else ""
                    chosen = {
                        "dataset": recipe.dataset,
                        "sequence-length": length,
                        "cell": cell,
                        "method": method,
                        "seed": seed,
                        "max-minutes": own.minutes if max_minutes is None else max_minutes,
                        **recipe.arguments,
                        **own.arguments,
                        **arguments,
                        **(changes or {}),
                    }
                    name = f"{cell.replace(':', '.')}-{length}-{method}{rate}-seed{seed}"
                    runs.append(Run(name, length, chosen, [length * factor for factor in recipe.tested]))
    return runs
