"""What an experiment measures on a finished run besides its score, as probes.json in the run's folder.

    format           1
    teacher          its own labels and readout on validation rows, see `evaluate_teacher`; null without one
    prompt           what its label at the end of the prompt is worth, see `evaluate_prompt`; null without a
                     teacher or a prompt that all rows have, and not there in files of earlier runs
    gradient_reach   relative gradient by distance in tokens, see `gradient_reach`: of SMT through the
                     teacher, [] where that is gone; of BPTT through the unrolled cell
    memory_map       free-running memories in their plane, see `memory_map`; null where there are no groups
    images           pixels drawn from nothing, validation images, and their halves completed; null otherwise

Seconds for a run: a few rows, and no more tokens than tell the shape.
"""

import json
from pathlib import Path
from typing import Any

from smt_hf.data import PixelSequences, load_data
from smt_hf.data.tasks.copying import CopyTask
from smt_hf.data.tasks.retrieval import RetrievalTask
from smt_hf.evaluation.gradient_reach import bptt_gradient_reach, smt_gradient_reach
from smt_hf.evaluation.images import sample_images
from smt_hf.evaluation.memory_map import memory_map
from smt_hf.evaluation.teacher_reference import evaluate_prompt, evaluate_teacher
from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.pretraining.configuration_teacher import SMTTeacherConfig
from smt_hf.pretraining.teacher import SMTTeacher
from smt_hf.runs.files import write_atomic
from smt_hf.runs.record import RunRecord
from smt_hf.runs.weights import load_whole

FORMAT = 1
FILE = "probes.json"
ROWS = 64
PROMPT_ROWS, PROMPT_TOKENS = 1024, 2**16
REACH_ROWS, REACH_TOKENS = 16, 256
# Labels of the teacher, over all rows: seconds of its attention.
REFERENCE_LABELS = 4096
MAP_ROWS, MAP_TOKENS = 512, 2**14
PREFIX = 3  # symbols of a string after which copies are mapped: enough for the branches of a tree
IMAGE_PIXELS = 1024  # of larger images drawing takes minutes


def write_probes(folder: Path) -> None:
    """Measure a finished run and write its probes.json, unless it is there."""
    if not (folder / FILE).is_file():
        write_atomic(folder / FILE, json.dumps(probe(folder)) + "\n")


def probe(folder: Path) -> dict[str, Any]:
    """The probes of a finished run, as the head of this file describes them.

    A cell of one's own has to be registered. Raises ValueError for a folder without a finished run.
    """
    record = RunRecord.of_finished(folder)
    model = load_whole(SMTForCausalLM, folder, "smt")
    teacher = None
    if (folder / "teacher").is_dir():
        teacher = load_whole(SMTTeacher, folder / "teacher", SMTTeacherConfig.model_type)
    named = record.data
    is_text = record.data_kind == "text"
    data = load_data(
        named.pop("dataset"), sequence_length=record.sequence_length, seed=record.seed,
        tokenizer=str(folder) if is_text else None, **named,
    ).validation  # fmt: skip
    return {
        "format": FORMAT,
        "teacher": reference(teacher, data, record.spec["eval_horizon"]) if teacher else None,
        "prompt": prompted(model, teacher, data) if teacher else None,
        "gradient_reach": reach(model, teacher, data) if learns(teacher) or record.method == "bptt" else [],
        "memory_map": mapped(model, data),
        "images": images(model, data) if isinstance(data, PixelSequences) else None,
    }


def learns(teacher: Any) -> bool:
    """Whether a gradient goes back from its labels to the tokens; none goes through a given model."""
    return teacher is not None and teacher.config.encoder_type != "given"


def reference(teacher: Any, data: Any, horizon: int) -> dict[str, Any]:
    x, y = data.evaluation_rows(ROWS, horizon)
    asked = int((y[:, : teacher.config.context_length] != -100).any(0).sum())
    rows = max(1, REFERENCE_LABELS // max(1, asked))
    metrics = evaluate_teacher(teacher, x[:rows], y[:rows])
    return {name: metrics[name] for name in ("loss", "accuracy", "by_horizon")}


def prompted(model: Any, teacher: Any, data: Any) -> dict[str, float] | None:
    rows = min(PROMPT_ROWS, max(1, PROMPT_TOKENS // data.sequence_length))
    return evaluate_prompt(model, teacher, *data.evaluation_rows(rows, data.sequence_length))


def reach(model: Any, teacher: Any, data: Any) -> list[float]:
    """Of the last target that rows of min(T, 256) tokens have; to 4 significant digits."""
    length = min(data.sequence_length, REACH_TOKENS, *([teacher.config.context_length] if teacher else []))
    x, y = data.at_length(length).evaluation_rows(REACH_ROWS, length)
    last = int((y != -100).any(0).nonzero().max())
    rows = y[:, last] != -100
    x, targets = x[rows, : last + 1], y[rows, last]
    found = smt_gradient_reach(teacher, x, targets) if teacher else bptt_gradient_reach(model, x, targets)
    return [float(f"{value:.4g}") for value in found]


def mapped(model: Any, data: Any) -> dict[str, Any] | None:
    """Retrieval: before the query, by the value that is held. Copies: after 3 symbols, by the first of them."""
    if isinstance(data, RetrievalTask):
        read, group_by = data.sequence_length - 1, "value to be held"
    elif isinstance(data, CopyTask) and data.sequence_length >= 2 * PREFIX:
        read, group_by = PREFIX, "first symbol"
    else:
        return None
    count = min(MAP_ROWS, len(data), max(ROWS, MAP_TOKENS // read))
    rows = data.__getitems__(range(count))
    x = rows["input_ids"]
    held = rows["shift_labels"][:, -1] if isinstance(data, RetrievalTask) else x[:, 0]
    return memory_map(model, x[:, :read], [data.symbols[i] for i in held.tolist()], group_by)


def images(model: Any, data: PixelSequences) -> dict[str, Any] | None:
    height, width = data.image_shape
    if height * width > IMAGE_PIXELS:
        return None
    generated, originals, completed, given = sample_images(model, data)
    return {
        "height": height,
        "width": width,
        "levels": data.grey_levels,
        "generated": generated.reshape(len(generated), -1).tolist(),
        "given": given,
        "originals": originals.reshape(len(originals), -1).tolist(),
        "completed": completed.reshape(len(completed), -1).tolist(),
    }
