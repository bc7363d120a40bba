"""An export as a whole: a new folder with a program that was compared with the model."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from smt_hf.models.modeling_smt import SMTForCausalLM
from smt_hf.runs.files import discard, part_of

from .executorch import executorch_run, write_executorch
from .onnx import onnx_run, quantize, write_onnx
from .openvino import openvino_run, write_openvino
from .page import check_runtime, check_size, page_tokenizer, write_page
from .program import Comparison, StepProgram, check, compare, described

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TARGETS = ("onnx", "openvino", "executorch", "web")


def export(
    model: SMTForCausalLM,
    tokenizer: "PreTrainedTokenizerBase",
    to: str,
    folder: Path,
    title: str,
    int8: bool = False,
    runtime: Path | None = None,
) -> tuple[Comparison, Comparison | None]:
    """Write `folder`, which is whole or absent. to: one of TARGETS.

    int8: int8 weights and products (onnx, web). runtime: folder of onnxruntime-web; without, a CDN is used.
    Returns (the program in float32 beside the model, and the one with int8 weights).

    Raises ValueError for another target, for options that the target does not use, for a cell that cannot be
    exported, for a program that differs from the model, and for a page that could not run; FileExistsError for
    a folder that exists.
    """
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists; name a new folder.")
    if to not in TARGETS:
        raise ValueError(f"there is no export to {to!r}; it must be one of {', '.join(TARGETS)}.")
    if runtime is not None and to != "web":
        raise ValueError(f"runtime is for web, and not for {to}; leave it out.")
    if int8 and to in ("openvino", "executorch"):
        raise ValueError(f"int8 is for onnx and web, and not for {to}; leave it out, or export to onnx.")
    pieces = page_tokenizer(tokenizer) if to == "web" else None
    if runtime is not None:
        check_runtime(runtime)
    program = StepProgram(model)
    if to == "web":
        weights = sum(weight.numel() for weight in program.parameters())
        check_size(weights if int8 else 4 * weights)
    part = part_of(folder)
    discard(part)
    part.mkdir(parents=True)
    try:
        small = None
        if to == "executorch":
            write_executorch(program, part / "model.pte")
            found = compare(executorch_run(part / "model.pte"), program)
            check(found, "ExecuTorch")
        else:
            found, small = _by_onnx(program, part / "model.onnx", to, int8)
        if pieces is not None:
            check_size((part / "model.onnx").stat().st_size)
            write_page(part, program, pieces, title, runtime)
        else:
            (part / "program.json").write_text(json.dumps(described(program), indent=1) + "\n", "utf-8")
            tokenizer.save_pretrained(part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found, small


def _by_onnx(program: StepProgram, path: Path, to: str, int8: bool) -> tuple[Comparison, Comparison | None]:
    write_onnx(program, path)
    found, small = compare(onnx_run(path), program), None
    check(found, "onnxruntime")
    if int8:
        quantize(path)
        small = compare(onnx_run(path), program)
    if to == "openvino":
        write_openvino(path, path.with_suffix(".xml"))
        path.unlink()
        found = compare(openvino_run(path.with_suffix(".xml")), program)
        check(found, "OpenVINO")
    return found, small
