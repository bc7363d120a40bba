"""smt_hf: recurrent language models pretrained without backpropagation through time."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .models.cell_base import MemoryCell
from .models.cells import CELLS, register_cell
from .models.configuration_smt import SMTConfig
from .models.modeling_smt import SMTForCausalLM, SMTModel

__version__ = "0.1.0"

AutoConfig.register("smt", SMTConfig)
AutoModel.register(SMTConfig, SMTModel)
AutoModelForCausalLM.register(SMTConfig, SMTForCausalLM)


def __getattr__(name: str):
    """The training side comes with Accelerate; who only generates need not wait for it."""
    if name in ("SMTPretrainer", "SMTPretrainingArguments", "SMTTeacher", "SMTTeacherConfig"):
        from . import pretraining

        return getattr(pretraining, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CELLS",
    "MemoryCell",
    "SMTConfig",
    "SMTForCausalLM",
    "SMTModel",
    "register_cell",
]
