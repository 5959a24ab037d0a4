"""Publishing a trained decoder: a peft adapter with a model card, in a folder or on a hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from core.files import write_json
from decoder.binding import SIDECAR
from decoder.normalisation import STATISTICS_FILE
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.publish.card import model_card
from pipelines.reports.publish.target import PublishedTarget

CARD = "README.md"
_ADAPTER = "adapter_config.json"
_FILES = (_ADAPTER, "adapter_model.safetensors", SIDECAR, STATISTICS_FILE, "log.jsonl")


def newest_evaluation(root: ArtifactRoot, train: Artifact) -> Artifact | None:
    """Return the newest evaluation of a decoder, or None."""
    own = [a for a in root.artifacts("evaluate") if a.record["inputs"].get("train") == train.key]
    return max(own, key=lambda a: str(a.record.get("created", "")), default=None)


def fill_folder(
    folder: Path, train: Artifact, evaluated: Artifact | None, target: PublishedTarget
) -> None:
    """Write a decoder and its card into a folder that the caller makes whole or removes.

    The adapter's configuration and `latentqa.json` name the target by its repository and commit,
    where these are known.

    Args:
        folder: is there, and empty.
        train: the decoder.
        evaluated: its evaluation, or None.
        target: its target.

    Raises:
        DamagedError: the decoder's bytes are not those committed.
    """
    train.check_bytes()
    for name in _FILES:
        if (train.data / name).is_file():
            shutil.copyfile(train.data / name, folder / name)
    if target.repository is not None:
        _name_target(folder, target)
    (folder / CARD).write_text(model_card(train, evaluated, target), encoding="utf-8")


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
