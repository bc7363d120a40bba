"""The runner: carries the runs of a recipe out, tests each, and keeps the results table.

A run that is finished is not run again, and an interrupted one goes on from its checkpoint. Several runners may
share a folder: each writes only its own runs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smt_hf.data import load_tokenizer
from smt_hf.data.tasks import is_task, make_task
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.pretraining.assembly import build
from smt_hf.pretraining.fitting import unused
from smt_hf.pretraining.stops import NonFiniteLossError
from smt_hf.runs.own_cell import use_cell
from smt_hf.runs.record import RunRecord
from smt_hf.runs.results import FILE, read_results, replace_rows, rows_of_run
from smt_hf.runs.spec import RunSpec, make_spec
from smt_hf.runs.weights import load_whole

from .measure import measure
from .probes import write_probes
from .recipe import Run

# Unless the arguments say otherwise. Often enough that a killed run loses a minute or two.
RUNNING = {"checkpoint_every": 200, "save_total_limit": 1}


def spec_of(folder: Path, run: Run) -> RunSpec:
    """The description of a run in the folder, given what it has a use for, and what the user has set.

    Of that, a run leaves out in silence what only the other method of the experiment needs.
    """
    spec = make_spec({**RUNNING, **run.arguments, "output_dir": str(folder / run.name)})
    no_use = unused(spec, run.length)
    of_the_other = no_use.get(f"method is {spec.method}", [])
    from_recipe = {name for names in no_use.values() for name in names} - run.changed
    return replace(spec, given=spec.given.difference(from_recipe, of_the_other))


def check(folder: Path, runs: Sequence[Run]) -> None:
    """Raise ValueError before any run for what one of them could not start with, or be tested at.

    Of a task, whose models are quickly made, that is all that there is to check.
    """
    read_results(folder / FILE)  # raises if it is another version's
    for run in runs:
        spec = spec_of(folder, run)
        if is_task(spec.dataset):
            build(spec)
            for length in run.tested:
                make_task(spec.dataset, length)
        record = RunRecord.read(folder / run.name)
        if record is not None and (other := changed(record, spec)):
            raise ValueError(
                f"the run in {folder / run.name} was made with other arguments ({other}); choose another "
                f"--output-dir."
            )


def changed(record: RunRecord, spec: RunSpec) -> str:
    """What a run that is there was given otherwise, in words; empty if nothing."""
    names = sorted((spec.given | set(record.given)) - {"output_dir"})
    pairs = [(name, record.spec.get(name), spec.to_dict().get(name)) for name in names]
    return ", ".join(f"{name} {old!r}, now {new!r}" for name, old, new in pairs if old != new)


def one_run(name: str, folder: Path, run: Run) -> str:
    """Train, test and probe a run, as far as that is not done; in a few words, what came of it."""
    spec, table = spec_of(folder, run), folder / FILE
    use_cell(spec.cell)
    record = RunRecord.read(folder / run.name)
    said = f"{folder / run.name} is finished"
    if record is None or not record.finished:
        try:
            record = train(spec, resume=record is not None)
        except NonFiniteLossError as error:
            return f"{run.name} diverged and gives no result: {error}"
        said = f"{record.seconds:.0f} s of training, {record.tokens:,} tokens"
        tested = False
    else:
        tested = any(row["run"] == run.name for row in read_results(table))
    if not tested:
        replace_rows(table, run.name, evaluate(name, folder, run, record))
    write_probes(folder / run.name)
    return said


def train(spec: RunSpec, resume: bool) -> RunRecord:
    return build(spec).train(resume=resume)


def evaluate(name: str, folder: Path, run: Run, record: RunRecord) -> list[dict[str, Any]]:
    """Test a finished run at the lengths of its recipe, as `smt-hf evaluate` does."""
    path = folder / run.name
    model, tokenizer = load_whole(SMTForCausalLM, path, "smt"), load_tokenizer(str(path.absolute()))
    data: Any
    data, metrics = measure(
        model, tokenizer, record.data, sequence_length=record.sequence_length, lengths=run.tested
    )
    chance = data.validation.chance if data.kind == "task" else None
    return rows_of_run(name, run.name, run.length, record, metrics, chance, run.variant)
