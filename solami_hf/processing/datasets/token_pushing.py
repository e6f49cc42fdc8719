"""Token datasets to the Hub: one config of a folder at a time, with the card of all of them."""

from __future__ import annotations

import logging
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

logger = logging.getLogger(__name__)
_TOLD_BY = ["README.md", *(f"{config}/report.json" for config in ("motion", "speech", "chat"))]


def require_login(api: HfApi, repo_id: str) -> None:
    """ValueError when nobody is logged in, who could push to a repository."""
    try:
        api.whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise ValueError(
            f"{repo_id} is a Hub repository, but the Hub does not know you ({error}); log in with `hf auth login`, or "
            "name a folder"
        ) from error


def begin_repo(repo_id: str, folder: Path) -> None:
    """Makes sure that pushing will be possible, and fetches the reports of configs that the repository has already.

    Raises:
        ValueError: nobody is logged in.
    """
    api = HfApi()
    require_login(api, repo_id)
    try:
        wanted = [name for name in _TOLD_BY if not (folder / name).exists()]
        api.snapshot_download(repo_id, repo_type="dataset", local_dir=folder, allow_patterns=wanted)
    except RepositoryNotFoundError:
        logger.info("%s is new on the Hub", repo_id)


def push_config(repo_id: str, folder: Path, config: str, private: bool = True) -> str:
    """Uploads one config of a token dataset folder and its card; files of the config that are gone are deleted.

    Args:
        repo_id: `owner/name`, made when missing.
        folder: the dataset folder.
        config: `motion`, `speech` or `chat`.
        private: for a repository that is made.

    Returns:
        the address of the repository.
    """
    api = HfApi()
    url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repo_id,
        repo_type="dataset",
        folder_path=folder,
        allow_patterns=["README.md", f"{config}/*"],
        ignore_patterns=[f"{config}/.shards/*"],
        delete_patterns=[f"{config}/*"],
        commit_message=f"Prepare {config}",
    )
    return str(url)
