"""Folders uploaded to the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from core.errors import ConfigError, EndpointError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""The name of a repository on the hub."""
TOKEN = "HF_TOKEN"
"""Environment variable with the hub's token; it is read from nowhere else."""


def push_folder(
    folder: Path, repo: str, *, kind: Literal["model", "dataset"], private: bool, message: str
) -> str:
    """Upload a folder in one commit; make the repository if need be.

    Args:
        folder: what is uploaded.
        repo: ORG/NAME.
        kind: what the repository is of.
        private: whether a repository made here is private.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: `repo` is no name, or no token is in the environment.
        EndpointError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    if not HUB_ID.fullmatch(repo):
        raise ConfigError(f"--repo {repo}: not a repository's name; expected ORG/NAME.")
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise ConfigError(
            f"--repo {repo}: {TOKEN} is not set. Set it to a token with write access, or "
            "use only --out."
        )
    api = HfApi(token=token)
    try:
        made = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, repo_type=kind, folder_path=str(folder), commit_message=message
        )
    except Exception as error:  # whatever the hub's client raises, the way out is the same
        said = " ".join(str(error).split()).replace(token, "…")
        raise EndpointError(
            f"--repo {repo}: the upload failed ({type(error).__name__}: {said}). Check the "
            "connection and the token's write access, then publish again."
        ) from error
    return str(made)
