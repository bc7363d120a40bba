"""What several commands need: models from folders, and no bars of other libraries."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from smt_hf.example import FOLDER as EXAMPLE

from .network import ask_for_model


def add_model_arguments(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """optional: without a model it is the one that comes with the package."""
    what = "folder of a run, or a repository on the Hub"
    if optional:
        options: dict[str, Any] = {"nargs": "?", "default": str(EXAMPLE), "help": f"{what} [the example]"}
    else:
        options = {"help": what}
    parser.add_argument("model", metavar="MODEL", **options)
    parser.add_argument("--cell", help="module:Class of the model's cell, if it is one of your own")
    parser.add_argument(
        "--trust-remote-code", action="store_true",
        help="run the code that a tokenizer brings, if it is one of its own; the model's own code is never run",
    )  # fmt: skip


def check_model_path(model: str) -> None:
    """Raise a ValueError for a folder without weights, and for what is neither a folder nor a repository that
    can be had: a name below a folder that is there is meant to be a folder.
    """
    path = Path(model)
    if path.is_dir() and not (path / "model.safetensors").is_file() and not any(path.glob("*.index.json")):
        unfinished = " (the run in it is not finished)" if (path / "run.json").is_file() else ""
        raise ValueError(f"folder {model} holds no model.safetensors{unfinished}; give a finished run.")
    if path.is_file():
        raise ValueError(f"model {model} is a file; give the folder of a finished run.")
    if path.exists():
        return
    if model.count("/") != 1 or model.startswith((".", "/", "~")) or path.parent.is_dir():
        raise ValueError(f"model folder {model} does not exist; give a run folder or a Hub repository.")
    ask_for_model(model)


def load_model(args: argparse.Namespace) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer), as the arguments of `add_model_arguments` name them; nothing made up."""
    import torch

    from smt_hf import SMTForCausalLM
    from smt_hf.data import load_tokenizer
    from smt_hf.models.cells import CELLS
    from smt_hf.runs.own_cell import use_cell
    from smt_hf.runs.weights import load_whole

    if args.cell is not None:
        use_cell(args.cell)
    check_model_path(args.model)
    model = load_whole(SMTForCausalLM, args.model, "smt")
    # Classes, not names: the module of --cell may have registered its class under a name of its own.
    if args.cell is not None and CELLS[args.cell] is not CELLS[model.config.cell]:
        raise ValueError(
            f"--cell is {args.cell!r}, and the model's cell is {model.config.cell!r}; leave it out."
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    # A folder may be called "byte", which alone names a tokenizer.
    name = os.path.abspath(args.model) if Path(args.model).exists() else args.model
    return model, load_tokenizer(name, args.trust_remote_code)


def record_of(model: str) -> tuple[Any, bool]:
    """(the record of a run folder, or the one that a model on the Hub was pushed with; None without one,
    whether that is certain: without a network nobody knows what lies on the Hub).
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    from smt_hf.runs.record import FILE, RunRecord

    check_model_path(model)
    if Path(model).exists():
        return RunRecord.read(model), True
    try:
        return RunRecord.read(Path(hf_hub_download(model, FILE)).parent), True
    except LocalEntryNotFoundError:
        return None, False
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None, True
    except OSError:
        return None, False


def plain_console() -> Any:
    """A console for tables that takes names as they are: brackets and colons in them are no markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def new_file(name: str, path: str | Path) -> Path:
    """The path that a flag names for an output.

    Raises OSError for one that exists, or cannot be made, and ValueError for an empty one.
    """
    if not str(path):
        raise ValueError(f"{name} is empty; name a new file.")
    path = Path(path)
    if os.path.lexists(path):
        raise FileExistsError(f"{name} {path} exists; name a new {'folder' if 'dir' in name else 'file'}.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise PermissionError(f"{name} {path} cannot be written into {above}; name another file.")
    return path


class ToStandardError(logging.Handler):
    """Prints what the package logs, one line each, on whatever standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        from smt_hf.hub.tokens import masked

        print(masked(self.format(record)), file=sys.stderr)


def quiet() -> None:
    """No progress bars of other libraries between our own lines, and our own log on standard error."""
    # They are read when the library is first imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
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
