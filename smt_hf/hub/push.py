"""Upload a finished run to the Hub."""

from pathlib import Path

# What a run leaves behind for itself only.
KEPT_AT_HOME = ["checkpoints/*", "metrics.jsonl"]


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Create the repository if need be, upload the folder in one commit, and return its address.

    The card is written before, so the Hub never shows a template in its place.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    repo = api.create_repo(repo_id, private=private or None, exist_ok=True)
    api.upload_folder(repo_id=repo.repo_id, folder_path=folder, ignore_patterns=KEPT_AT_HOME)
    return str(repo)
