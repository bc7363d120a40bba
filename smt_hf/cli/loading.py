"""What several commands need: models from folders, and no bars of other libraries."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or a repository on the Hub")
    parser.add_argument("--cell", help="module:Class of the model's cell, if it is one of your own")


def check_model_path(model: str) -> None:
    """Raise a ValueError for a folder without weights, and for what is neither a folder nor a repository."""
    path = Path(model)
    if path.is_dir() and not (path / "model.safetensors").is_file() and not any(path.glob("*.index.json")):
        unfinished = " (the run in it is not finished)" if (path / "run.json").is_file() else ""
        raise ValueError(f"folder {model} holds no model.safetensors{unfinished}; give a finished run.")
    if not path.exists() and (model.count("/") != 1 or model.startswith((".", "/"))):
        raise ValueError(f"model folder {model} does not exist; give a run folder or a Hub repository.")


def load_model(args: argparse.Namespace) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer). Weights come from safetensors only."""
    import torch
    from transformers import AutoTokenizer

    from smt_hf import SMTForCausalLM
    from smt_hf.runs.own_cell import use_cell

    if args.cell:
        use_cell(args.cell)
    check_model_path(args.model)
    try:
        model = SMTForCausalLM.from_pretrained(args.model, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"model {args.model!r} cannot be loaded: {error}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved: Any = model
    moved.to(device).eval()
    return model, AutoTokenizer.from_pretrained(args.model)


def record_of(model: str) -> Any:
    """The record of a run folder, or the one that a model on the Hub was pushed with; None without one."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    from smt_hf.runs.record import FILE, RunRecord

    check_model_path(model)
    if Path(model).exists():
        return RunRecord.read(model)
    try:
        return RunRecord.read(Path(hf_hub_download(model, FILE)).parent)
    except (EntryNotFoundError, RepositoryNotFoundError, OSError):  # not there, or not to be had: no network
        return None


class ToStandardError(logging.Handler):
    """Prints what the package logs, one line each, on whatever standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def quiet() -> None:
    """No progress bars of other libraries between our own lines, and our own log on standard error."""
    # Both are read when `datasets` is first imported.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    ours = logging.getLogger("smt_hf")
    if not any(isinstance(handler, ToStandardError) for handler in ours.handlers):
        ours.addHandler(ToStandardError())
    # Of several processes one says it.
    ours.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)

    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
