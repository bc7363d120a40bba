"""Whether the Hub answers, asked once: its client would try each request six times, for half a minute."""

import os
from functools import cache
from pathlib import Path


@cache
def no_answer(endpoint: str) -> str:
    """What keeps the Hub at this address from answering, in words; empty if it answers.

    From then on libraries look only at what they have downloaded before.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(endpoint, timeout=10)
    except Exception as error:  # of whichever HTTP client the library uses
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # which `datasets` reads when it is imported
        return f"the Hub at {endpoint} does not answer ({' '.join(str(error).split())})"
    return ""


def ask_for_model(name: str) -> None:
    """Raise ValueError for a model that is no folder, was not downloaded before, and cannot be now."""
    from huggingface_hub import constants, try_to_load_from_cache

    why = no_answer(constants.ENDPOINT)
    if why and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        raise ValueError(f"model {name} is no folder, and was not downloaded from the Hub before; {why}.")


def ask_for_data(
    dataset: str | None,
    tokenizer: str | None = None,
    image_column: str | None = None,
    teacher: str | None = None,
) -> None:
    """Ask the Hub if one of these is there, so that what reads them need not find out."""
    from smt_hf.data import data_kind
    from smt_hf.data.corpora import PYTHON_DOCS, files_of
    from smt_hf.data.pixels import DIGITS
    from smt_hf.data.tokenizer import NAMED

    names = [name for name in (tokenizer, teacher) if name and name not in NAMED]
    named = [name for name in names if not Path(name).exists()]
    local = dataset in (None, PYTHON_DOCS, DIGITS) or data_kind(str(dataset), image_column) == "task"
    if dataset is not None and not local and files_of(dataset) is None:
        named.append(dataset)
    if named:
        from huggingface_hub import constants

        no_answer(constants.ENDPOINT)
