"""Experiments: SMT → DMT beside BPTT on one question each, as tables of arguments; no code of their own."""

from .copying import COPY
from .digits import DIGITS
from .modular import MODULAR
from .parity import PARITY
from .recall import RECALL
from .recipe import Recipe, Run, plan
from .retrieval import RETRIEVAL
from .serial_recall import PRIMACY, RECENCY
from .stack import STACK
from .text import TEXT

EXPERIMENTS = {
    "retrieval": RETRIEVAL,
    "copy": COPY,
    "stack": STACK,
    "recall": RECALL,
    "modular": MODULAR,
    "parity": PARITY,
    "recency": RECENCY,
    "primacy": PRIMACY,
    "digits": DIGITS,
    "text": TEXT,
}

__all__ = ["EXPERIMENTS", "Recipe", "Run", "plan"]
