"""Publishing a trained decoder: a peft adapter with a model card, in a folder or on a hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from core.errors import ConfigError, EndpointError, first_line
from core.files import new_folder, write_json
from decoder.model import SIDECAR
from decoder.normalisation import STATISTICS_FILE
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.publish.card import model_card
from pipelines.reports.publish.target import HUB_ID, PublishedTarget

TOKEN = "HF_TOKEN"
"""Environment variable with the hub's token; it is read from nowhere else."""
CARD = "README.md"
_ADAPTER = "adapter_config.json"
_FILES = (_ADAPTER, "adapter_model.safetensors", SIDECAR, STATISTICS_FILE, "log.jsonl")


def newest_evaluation(root: ArtifactRoot, train: Artifact) -> Artifact | None:
    """Return the newest evaluation of a decoder, or None."""
    own = [a for a in root.artifacts("evaluate") if a.record["inputs"].get("train") == train.key]
    return max(own, key=lambda a: str(a.record.get("created", "")), default=None)


def write_folder(
    folder: Path, train: Artifact, evaluated: Artifact | None, target: PublishedTarget
) -> None:
    """Write a decoder and its card, whole or not at all.

    The adapter's configuration and `latentqa.json` name the target by its repository and commit,
    where these are known.

    Args:
        folder: new or empty.
        train: the decoder.
        evaluated: its evaluation, or None.
        target: its target.

    Raises:
        StorageError: `folder` holds something already, or the disk is full or read-only.
        DamagedError: the decoder's bytes are not those committed.
    """
    train.check_bytes()
    with new_folder(folder) as aside:
        for name in _FILES:
            if (train.data / name).is_file():
                shutil.copyfile(train.data / name, aside / name)
        if target.repository is not None:
            _name_target(aside, target)
        (aside / CARD).write_text(model_card(train, evaluated, target), encoding="utf-8")


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a folder that `write_folder` wrote, in one commit; make the repository if need be.

    Args:
        folder: what is uploaded.
        repo: ORG/NAME.
        private: whether a repository made here is private.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: `repo` is no name, or no token is in the environment.
        EndpointError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not HUB_ID.fullmatch(repo):
        raise ConfigError(f"--repo {repo}: not a repository's name; expected ORG/NAME.")
    token = os.environ.get(TOKEN)
    if not token:
        raise ConfigError(
            f"--repo {repo}: {TOKEN} is not set; set it to a token that may write there, "
            "or give --out alone."
        )
    api = HfApi(token=token)
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="A decoder, its record and its card"
        )
    except (HfHubHTTPError, OSError) as error:
        said = first_line(error).replace(token, "…")
        raise EndpointError(f"--repo {repo}: the hub did not take it ({said}).") from error
    return str(made)


def _name_target(folder: Path, target: PublishedTarget) -> None:
    """Name the target in the published files so that others find it."""
    path = folder / _ADAPTER
    settings = json.loads(path.read_bytes())
    settings |= {"base_model_name_or_path": target.repository, "revision": target.revision}
    write_json(path, settings)
    if target.name != "embedded":  # which every installation finds by that name
        path = folder / SIDECAR
        sidecar = json.loads(path.read_bytes())
        revision = f"@{target.revision}" if target.revision else ""
        write_json(path, {**sidecar, "model": f"{target.repository}{revision}"})
