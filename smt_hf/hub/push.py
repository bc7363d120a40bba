"""Upload a finished run to the Hub: everything checked first, then one commit."""

import ast
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smt_hf.models.cells import CELLS
from smt_hf.runs.config import read_json
from smt_hf.runs.record import RunRecord
from smt_hf.runs.weights import check_numbers, load_whole

from .tokens import masked

# What a reader of the repository uses. Checkpoints, metrics and whatever else lies in the folder stay there.
MODEL = ["config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
TOKENIZER = [
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.jinja"),
]
# States of prompts that the model comes with (docs/states.md).
STATES = ["states/*.safetensors"]
UPLOADED = ["README.md", "LICENSE", "run.json", "generation_config.json", *MODEL, *TOKENIZER, *STATES]
# What a repository may have before its first push.
BARE = {".gitattributes", "LICENSE", "README.md"}
# Another value of one of these is another model.
ARCHITECTURE = [
    *("model_type", "architectures", "cell", "vocab_size", "hidden_size", "num_memory_tokens"),
    *("num_hidden_layers", "num_readout_layers", "num_attention_heads", "intermediate_size"),
]

logger = logging.getLogger(__name__)


def files_to_upload(folder: Path, teacher: bool = True) -> list[Path]:
    """The files of a finished run that are uploaded, sorted. Hidden files never are.

    Raises ValueError for a folder without a finished run, and for a link that leads out of it.
    """
    record = RunRecord.read(folder)
    if record is None:
        raise ValueError(f"there is no run in {folder} (no run.json); give the folder of a finished run.")
    if not record.finished:
        raise ValueError(f"the run in {folder} is not finished; resume it to its end, then push it.")
    found = {path for pattern in UPLOADED for path in folder.glob(pattern)}
    if teacher:
        found |= {path for pattern in MODEL for path in (folder / "teacher").glob(pattern)}
    found |= code_of(folder)
    files = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    inside = folder.resolve()
    if outside := [path for path in files if not path.resolve().is_relative_to(inside)]:
        raise ValueError(
            f"{outside[0]} is a link to {outside[0].resolve()}, outside the run; put a copy there."
        )
    names = {path.name for path in files if path.parent == folder}
    if missing := {"config.json", "README.md"} - names:
        raise ValueError(f"the run in {folder} lacks {', '.join(sorted(missing))}; train it again.")
    if not names & {"model.safetensors", "model.safetensors.index.json"}:
        raise ValueError(f"the run in {folder} lacks model.safetensors; train it again.")
    return files


def code_of(folder: Path) -> set[Path]:
    """The code that `config.json` names, and what it imports from beside it; no other file of Python."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    names = config.get("auto_map") or {}
    waiting = {str(name).split(".")[0] for name in names.values()} if isinstance(names, dict) else set()
    found: set[Path] = set()
    while waiting:
        path = folder / f"{waiting.pop()}.py"
        if path in found or path.parent != folder or not path.is_file():
            continue
        found.add(path)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{path} is no Python ({error}); train the run again.") from None
        imported = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1)
        waiting |= {node.module.split(".")[0] for node in imported if node.module}
    return found


def check_content(folder: Path, files: list[Path]) -> None:
    """Raise ValueError for a token of the user in one of the files, and for weights that are not whole."""
    from smt_hf.models.modeling_smt import SMTForCausalLM

    refuse_token(files)
    if str(read_json(folder / "config.json").get("cell", "gru")) in CELLS:
        load_whole(SMTForCausalLM, folder, "smt")
    else:  # a class of one's own, which need not be there
        check_numbers(folder)
    if any(path.parent.name == "teacher" and path.suffix == ".safetensors" for path in files):
        check_numbers(folder / "teacher")


def class_stays_behind(cell: str) -> str | None:
    """One line to say when a model's cell is not part of the code that travels with it, else None."""
    if cell in CELLS and CELLS[cell].__module__.startswith("smt_hf.models."):
        return None
    return (
        f"cell {cell!r} is a class of your own and does not travel with the checkpoint: who loads the model "
        f"must define it and call register_cell({cell!r}, ...) first."
    )


def check_name(repo_id: str) -> None:
    """Raise ValueError for what cannot be the name of a repository."""
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except ValueError:
        raise ValueError(
            f"{repo_id!r} cannot be the name of a repository; give NAME or OWNER/NAME, of letters, digits, "
            f"'-', '_' and '.'."
        ) from None


def check_access(
    config: dict[str, Any], repo_id: str, private: bool = False, revision: str | None = None
) -> str:
    """The full name of the repository, once it is certain that a push of this model is welcome there.

    config: the model's config.json. Nothing is created or sent.

    Raises ValueError for a name that cannot be, a repository that holds another model or files of another
    kind, and a public one where a private one is wanted; PermissionError for a missing, wrong or read-only
    token, or a repository of somebody else; ConnectionError for no network.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    check_name(repo_id)
    if get_token() is None:
        raise PermissionError("no Hugging Face token was found; run `hf auth login` or set HF_TOKEN.")
    api = HfApi()
    with plain_errors(repo_id):
        user = api.whoami()
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PermissionError(
                f"the token of {user['name']} may only read; make one that may write, at "
                f"{api.endpoint}/settings/tokens."
            )
        full_name = repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
        try:
            try:
                info = api.model_info(full_name, revision=revision)
            except RevisionNotFoundError:  # the branch will begin as main
                info = api.model_info(full_name)
        except RepositoryNotFoundError:
            owner = full_name.split("/")[0]
            if owner not in {user["name"], *(o["name"] for o in user.get("orgs", []))}:
                raise PermissionError(
                    f"repository {full_name} does not exist or is private, and {user['name']} may not create "
                    f"one of {owner}; push to {user['name']}/{full_name.split('/')[1]}."
                ) from None
            return full_name
        if private and not info.private:
            raise ValueError(
                f"repository {full_name} is public already; make it private in its settings or "
                f"choose another name."
            )
        there = {file.rfilename for file in info.siblings or []}
        if "config.json" in there:
            path = api.hf_hub_download(full_name, "config.json", revision=info.sha)
            if other := difference(read_json(Path(path)), config):
                raise ValueError(
                    f"repository {full_name} holds another model ({other}); choose another name or "
                    f"delete it first."
                )
        elif config and (others := sorted(there - BARE)):  # code alone may be meant for another branch
            raise ValueError(
                f"repository {full_name} holds no model but {', '.join(others[:3])}; choose another name."
            )
    return full_name


def push(
    folder: Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    teacher: bool = True,
) -> str:
    """Upload a finished run in one commit and return the address of the repository.

    Files that the repository has already are not sent again; an interrupted push leaves it as it was.

    folder: of the run. repo_id: OWNER/NAME, or NAME for one's own; made if need be, `private` or public.
    revision: a branch, made from main if need be. teacher: whether to upload teacher/ too.

    Raises as `files_to_upload` and `check_access` do; ValueError also for metadata that the Hub refuses and
    for a file that holds the user's token; ConnectionError for an upload that was cut.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
    from yaml import YAMLError  # huggingface_hub cannot be installed without it

    files = files_to_upload(folder, teacher)
    record, config = RunRecord.of_finished(folder), read_json(folder / "config.json")
    check_content(folder, files)
    full_name = check_access(config, repo_id, private, revision)
    if notice := class_stays_behind(record.cell):
        logger.warning(notice)
    text = address_snippets((folder / "README.md").read_text(encoding="utf-8"), record, full_name)
    api = HfApi()
    with plain_errors(full_name):
        try:
            ModelCard(text).validate()
        except (ValueError, YAMLError) as error:
            said = masked(" ".join(str(error).split()))
            raise ValueError(f"the Hub refuses the metadata of {folder / 'README.md'}: {said}") from error
        # None leaves an organisation's default alone; False would ask for a public repository.
        address = api.create_repo(full_name, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(full_name, branch=revision, exist_ok=True)
        # Not upload_folder, which commits in several parts where hf_xet is installed.
        api.create_commit(
            full_name,
            [
                CommitOperationAdd(
                    path.relative_to(folder).as_posix(), text.encode() if path == folder / "README.md" else path
                )
                for path in files
            ],
            commit_message=f"Upload {record.cell} by {record.method}, {record.steps:,} steps",
            revision=revision,
        )
    return str(address)


def address_snippets(card: str, record: RunRecord, repo_id: str) -> str:
    """The card, its snippets loading from the repository instead of the folder's name."""
    return card.replace(
        f"from_pretrained({python_text(record.hub_name)}", f"from_pretrained({python_text(repo_id)}"
    )


def python_text(text: str) -> str:
    """The text as Python writes it between double quotes, on one line."""
    return json.dumps(text, ensure_ascii=False)


def refuse_token(files: list[Path]) -> None:
    """Raise ValueError if the user's token stands in a file about to be published."""
    from huggingface_hub import get_token

    token = get_token()
    for path in files:
        if token and path.suffix != ".safetensors" and token.encode() in path.read_bytes():
            raise ValueError(f"{path} holds your Hugging Face token; remove it from the file before pushing.")


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What makes one config.json another architecture than the other, in words; empty if nothing does."""
    names = [name for name in ARCHITECTURE if new.get(name) is not None and old.get(name) != new[name]]
    return ", ".join(f"{name} {old.get(name)!r}, yours {new.get(name)!r}" for name in names)


@contextmanager
def plain_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub and the network answer into one sentence for who pushes."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    whole = "{} holds what it held before, or all of the new version; send it again with smt-hf push."
    try:
        yield
    except OfflineModeIsEnabled:
        raise ConnectionError("HF_HUB_OFFLINE is set; unset it to push.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise PermissionError(
                "the Hub does not accept your token; run `hf auth login` again or set another HF_TOKEN."
            ) from error
        if status in (403, 404):
            raise PermissionError(
                f"your token may not write to {repo_id}; push to a repository of your own."
            ) from error
        answer = f"the Hub answered {status} ({masked(error.server_message or 'no reason given')})"
        raise ConnectionError(f"{answer}; {whole.format(repo_id)}") from error
    except (HTTPError, RuntimeError) as error:  # RuntimeError: how the library reports a broken upload
        answer = f"the connection to the Hub failed ({masked(str(error.__cause__ or error))})"
        raise ConnectionError(f"{answer}; {whole.format(repo_id)}") from error
