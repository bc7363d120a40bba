"""The recipes: SMT → DMT beside BPTT on one question each, as fragments of a `RunSpec` with their reasons."""

from .ablations import ABLATIONS
from .compression import COMPRESSION
from .copying import COPY
from .digits import DIGITS
from .finetune import FINETUNE
from .marked import MARKED, MARKED16
from .modular import MODULAR
from .normalisation import NORMALISATION
from .parity import PARITY
from .recall import RECALL, RECALL8
from .retrieval import RETRIEVAL
from .serial_recall import PRIMACY, RECENCY
from .stack import STACK
from .sweeps import SWEEPS
from .text import TEXT

EXPERIMENTS = {
    "retrieval": RETRIEVAL,
    "marked": MARKED,
    "marked16": MARKED16,
    "copy": COPY,
    "stack": STACK,
    "recall": RECALL,
    "recall8": RECALL8,
    "modular": MODULAR,
    "parity": PARITY,
    "recency": RECENCY,
    "primacy": PRIMACY,
    "digits": DIGITS,
    "text": TEXT,
    "ablations": ABLATIONS,
    "compression": COMPRESSION,
    "normalisation": NORMALISATION,
    "sweeps": SWEEPS,
    "finetune": FINETUNE,
}
