"""Recipe: what an experiment trains, as fragments of a `RunSpec`, and the runs that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

Arguments = Mapping[str, Any]

# What the recipes of the synthetic tasks have in common; the reasons stand in studies/LOG.md.
TASK: dict[str, Any] = {
    "hidden_size": 64,  # 1 kB of state: the tasks are small, and steps cheap
    "num_encoder_layers": 2,  # two find a key and its value; four see half as many rows in the same time
    "num_readout_layers": 1,
    "eval_sequences": 256,
    "num_evaluations": 8,
}
TASK_SMT: dict[str, Any] = {
    "learning_rate": 2e-3,
    "num_labels": 16,  # answers are rare, so that more labels in a row meet one
    "dmt_fraction": 0.5,  # drift is most of the gap between teacher and free-running cell
    "dmt_learning_rate": 1.5e-3,
}
# For tasks where every symbol of a row counts: string, stack, keys, numbers.
SYMBOLS: dict[str, Any] = {
    **TASK,
    "num_readout_layers": 2,  # with 4 labels: teacher's loss on reverse copy 0.28 instead of 1.0
    # A quarter of the rows takes a quarter of the time: reverse copy reaches 0.63 instead of 0.48.
    "batch_size": 16,
    "decay_ratio": 0.6,  # half of what DMT learns, it learns while the rate falls
}
SYMBOLS_SMT: dict[str, Any] = {
    "learning_rate": 2e-3,
    "num_labels": 4,  # answers are many, and rows are seen four times as fast as with 16
    # Ten times the paper's dynamics weight needs a hundred times its uniformity weight. Without the second,
    # six sevenths of a label are the same for every string, and the cell's error is a sixth of what differs.
    # Reverse copy after 5 minutes reaches 0.81 with these weights, and 0.55 with 0.3 and 0.001.
    "dynamics_weight": 1,
    "uniformity_weight": 0.1,
    "dmt_fraction": 0.6,
    "dmt_learning_rate": 1.5e-3,
    "dmt_label_every": 4,  # labels are most of a step's work; more rows are worth more
}
# A thousand rows that are longer than this take longer to test than a model takes to train.
LONGEST_TESTED = 4096
# The best of these is BPTT's result. The lowest suits a transformer cell, the highest a GRU.
BPTT_LEARNING_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Length:
    """A training length. arguments: what it needs, which wins over a method's. The budget of a run is
    `minutes` on one CPU core, or max_steps if the arguments have it."""

    minutes: float
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """SMT → DMT and BPTT of the same cells, on the same data, with equal budgets and the same curriculum.

    about: one line for `smt-hf experiment --help`.
    dataset, arguments: for both methods; smt, bptt: for one of them. Names are fields of `RunSpec`.
    lengths: training lengths, shortest first, the one that is run unless more are asked for.
    tested: the lengths that a task is tested at, as multiples of the length trained; those beyond
        LONGEST_TESTED are left out.
    variants: arguments that win over all others, by name; each is run beside the recipe as it is, by SMT
        unless it says method bptt.
    """

    about: str
    dataset: str
    lengths: Mapping[int, Length]
    cells: Sequence[str] = ("gru", "transformer")  # one with gates, one without
    arguments: Arguments = field(default_factory=lambda: TASK)
    smt: Arguments = field(default_factory=lambda: TASK_SMT)
    bptt: Arguments = field(default_factory=dict)
    bptt_learning_rates: Sequence[float] = BPTT_LEARNING_RATES
    tested: Sequence[int] = (1, 2, 4, 16)
    variants: Mapping[str, Arguments] = field(default_factory=dict)


def by_name(*variants: Arguments) -> dict[str, Arguments]:
    """Variants under the names that their flags spell: "future-length=8", "detach-labels"."""

    def spelled(name: str, value: Any) -> str:
        return name.replace("_", "-") + ("" if value is True else f"={value}")

    return {",".join(spelled(name, value) for name, value in one.items()): one for one in variants}


@dataclass(frozen=True)
class Run:
    """One run: the name of its folder, the recipe's length, its arguments (of a `RunSpec`), the lengths to test
    it at, the name of the variant, empty for the recipe as it is, and which arguments the user has set."""

    name: str
    length: int
    arguments: Arguments
    tested: Sequence[int]
    variant: str = ""
    changed: frozenset[str] = frozenset()


def methods_of(recipe: Recipe, variant: Arguments, rates: Sequence[float]) -> list[tuple[str, Arguments]]:
    """What is run of a variant, as methods and their arguments: both of the recipe as it is, else one."""
    methods: dict[str, list[tuple[str, Arguments]]] = {
        "smt": [("smt", recipe.smt)],
        "bptt": [("bptt", {**recipe.bptt, "learning_rate": rate}) for rate in rates],
    }
    return methods[variant.get("method", "smt")] if variant else methods["smt"] + methods["bptt"]


def plan(
    recipe: Recipe,
    lengths: Sequence[int] | None = None,
    cells: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    max_minutes: float | None = None,
    learning_rates: Sequence[float] | None = None,
    changes: Arguments | None = None,
    variants: Sequence[str] | None = None,
) -> list[Run]:
    """The runs of a recipe, SMT before BPTT, the recipe as it is before its variants; None: the recipe's.

    changes: arguments of `pretrain` that win over the recipe's, for both methods, and over no variant's. A
        learning rate is that of SMT: `learning_rates`, by which the runs of BPTT are named, are theirs.
    A length that the recipe does not have takes the arguments and minutes of its longest one.
    Raises ValueError for a variant that the recipe does not have.
    """
    chosen = recipe.variants if variants is None else variants
    if unknown := [name for name in chosen if name not in recipe.variants]:
        there = f"choose among {', '.join(recipe.variants)}" if recipe.variants else "the recipe has none"
        raise ValueError(f"unknown variant {unknown[0]!r}; {there}.")
    rates = learning_rates or recipe.bptt_learning_rates
    runs = []
    for length in lengths or [min(recipe.lengths)]:
        own = recipe.lengths.get(length, recipe.lengths[max(recipe.lengths)])
        for cell, seed, variant in product(cells or recipe.cells, seeds, ["", *chosen]):
            differs = recipe.variants[variant] if variant else {}
            for method, arguments in methods_of(recipe, differs, rates):
                won = dict(changes or {})
                if method == "bptt":
                    won.pop("learning_rate", None)
                given = {
                    "dataset": recipe.dataset,
                    "sequence_length": length,
                    "cell": cell,
                    "method": method,
                    "seed": seed,
                    **recipe.arguments,
                    **arguments,
                    **own.arguments,
                    **won,
                    **differs,
                }
                if max_minutes is not None:
                    given.pop("max_steps", None)
                if "max_steps" not in given:
                    given["max_minutes"] = own.minutes if max_minutes is None else max_minutes
                rate = f"-{arguments['learning_rate']:g}" if method == "bptt" else ""
                name = f"{cell}-{length}-{method}{rate}{'-' if variant else ''}{variant}-seed{seed}"
                tested = [length * n for n in recipe.tested if n == 1 or length * n <= LONGEST_TESTED]
                runs.append(Run(name.replace(":", "."), length, given, tested, variant, frozenset(won)))
    return runs
