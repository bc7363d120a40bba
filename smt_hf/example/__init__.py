"""A small model that comes with the package: text within seconds of the installation, without the Hub.

The files beside this one are a run folder. Its model card (README.md) says what it was trained on, and
`studies/example` of the repository makes it anew.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from smt_hf.models.modeling_smt import SMTForCausalLM

FOLDER = Path(__file__).parent


def load_example() -> "tuple[SMTForCausalLM, PreTrainedTokenizerBase]":
    """(the model in eval mode, float32 on the CPU; its tokenizer)."""
    from transformers import AutoTokenizer

    from smt_hf.models.modeling_smt import SMTForCausalLM

    return SMTForCausalLM.from_pretrained(FOLDER).eval(), AutoTokenizer.from_pretrained(FOLDER)
