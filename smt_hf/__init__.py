"""smt_hf: recurrent language models pretrained without backpropagation through time.

Importing it makes the models known to the Auto classes of `transformers`.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .example import load_example
    from .models.cell_base import MemoryCell
    from .models.cells import CELLS, register_cell
    from .models.configuration_smt import SMTConfig
    from .models.modeling_smt import SMTForCausalLM, SMTModel
    from .pretraining.assembly import build
    from .pretraining.configuration_teacher import SMTTeacherConfig
    from .pretraining.teacher import SMTTeacher
    from .pretraining.trainer import SMTPretrainer
    from .runs.arguments import SMTPretrainingArguments
    from .runs.spec import RunSpec

# name → where it is defined. Each is imported when it is asked for: who only generates does not wait for
# Accelerate, and the command line for nothing that its command does not need.
NAMES = {
    "CELLS": "models.cells",
    "MemoryCell": "models.cell_base",
    "RunSpec": "runs.spec",
    "SMTConfig": "models.configuration_smt",
    "SMTForCausalLM": "models.modeling_smt",
    "SMTModel": "models.modeling_smt",
    "SMTPretrainer": "pretraining.trainer",
    "SMTPretrainingArguments": "runs.arguments",
    "SMTTeacher": "pretraining.teacher",
    "SMTTeacherConfig": "pretraining.configuration_teacher",
    "build": "pretraining.assembly",
    "load_example": "example",
    "register_cell": "models.cells",
}


def register() -> None:
    """Make the models known to the Auto classes."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from .models.configuration_smt import SMTConfig
    from .models.modeling_smt import SMTForCausalLM, SMTModel

    AutoConfig.register("smt", SMTConfig, exist_ok=True)
    AutoModel.register(SMTConfig, SMTModel, exist_ok=True)
    AutoModelForCausalLM.register(SMTConfig, SMTForCausalLM, exist_ok=True)


def __getattr__(name: str):
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *NAMES]


__all__ = [
    "CELLS",
    "MemoryCell",
    "RunSpec",
    "SMTConfig",
    "SMTForCausalLM",
    "SMTModel",
    "SMTPretrainer",
    "SMTPretrainingArguments",
    "SMTTeacher",
    "SMTTeacherConfig",
    "build",
    "load_example",
    "register_cell",
]

# `smt-hf --help` need not load torch; a command that loads a model registers it.
# "-m": `python -m smt_hf` is about to run.
if Path(sys.argv[0] if sys.argv else "").stem not in ("smt-hf", "-m"):
    register()
