"""Refresh the code that a pushed checkpoint carries; the model stays as it is."""

import json
import logging
from pathlib import Path

import smt_hf.models
from smt_hf.models.configuration_smt import CONFIG_VERSION
from smt_hf.version import __version__

from .push import check_access, class_stays_behind, plain_errors

logger = logging.getLogger(__name__)


def code_files() -> list[Path]:
    """What `save_pretrained` puts beside the weights, sorted."""
    folder = Path(smt_hf.models.__path__[0])
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def push_code(repo_id: str, revision: str | None = None) -> str:
    """Commit this version's code to a repository that holds an SMT model, and return its address.

    Nothing but these files changes there; files that are the same already are not sent.

    Raises as `check_access` does; ValueError also for a repository or branch without an SMT model, and for a
    model of a newer version than this code.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    full_name = check_access({}, repo_id)
    api = HfApi()
    with plain_errors(full_name):
        try:
            path = api.hf_hub_download(full_name, "config.json", revision=revision)
        except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            where = full_name if revision is None else f"branch {revision} of {full_name}"
            raise ValueError(f"{where} holds no model; push a run first, with smt-hf push RUN_DIR.") from None
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        if config.get("model_type") != "smt":
            raise ValueError(
                f"{full_name} holds a model of type {config.get('model_type')!r}; this code is of SMT models."
            )
        if (version := config.get("config_version", 1)) > CONFIG_VERSION:
            raise ValueError(
                f"the model in {full_name} has config_version {version}, this code reads up to "
                f"{CONFIG_VERSION}; update smt-hf."
            )
        if notice := class_stays_behind(config["cell"]):
            logger.warning(notice)
        commit = api.create_commit(
            full_name,
            [CommitOperationAdd(path.name, path) for path in code_files()],
            commit_message=f"Update the code to smt-hf {__version__}",
            revision=revision,
        )
    return str(commit.repo_url)
