"""The target of a published decoder as others find it: repository, commit, licence, digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from activation_store.model_files import embedded_model
from activation_store.model_files.files import ModelFiles, public_name
from core.errors import ConfigError
from pipelines.artifacts.artifact import Artifact
from pipelines.reports.publish.hub import HUB_ID

_CARD = "README.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTarget:
    """The target of a decoder, without folders of a machine.

    Attributes:
        name: reference under which it was trained with.
        adapter: likewise the target's own adapter, or None.
        repository: its repository on the Hugging Face hub; None where that is not known.
        revision: commit of the repository; None where that is not known.
        licence: licence of the target, as the hub spells it; None where that is not known.
        digests: digests of weights, configuration, tokenizer, chat template and adapter.
    """

    name: str
    adapter: str | None
    repository: str | None
    revision: str | None
    licence: str | None
    digests: Mapping[str, str]


def describe_target(
    train: Artifact, *, base_model: str | None = None, licence: str | None = None
) -> PublishedTarget:
    """Describe the target of a trained decoder.

    The repository is that of the experiment's hub id, of the embedded model, or of the hub's cache
    that the target lay in; the commit is named only where the weights in the cache are those that
    the decoder was trained with. The licence is read from the target's own model card.

    Args:
        train: an artifact of kind train.
        base_model: the repository (ORG/NAME, or ORG/NAME@COMMIT) where it is not known here.
        licence: the target's licence where it is not known here.

    Raises:
        ConfigError: `base_model` is no name of a repository.
    """
    where = train.record["locations"]
    ref, adapter = str(where["model"]), where.get("adapter")
    digests = train.identity["external"]
    if base_model is not None:
        repository, _, revision = base_model.partition("@")
        if not HUB_ID.fullmatch(repository):
            raise ConfigError(
                f"--base-model {base_model}: not a repository's name; expected ORG/NAME."
            )
        folder = None
    elif ref == "embedded":
        repository, revision, folder = embedded_model.REPOSITORY, "", None
        licence = licence or embedded_model.LICENCE
    else:
        folder = _local_folder(ref)
        repository, revision = _from_cache_path(folder) if folder else ("", "")
        if not repository and HUB_ID.fullmatch(ref.partition("@")[0]):
            repository, _, revision = ref.partition("@")
        if folder is not None and not _has_weights(folder, digests):
            folder, revision = None, ""
    return PublishedTarget(
        name=public_name(ref),
        adapter=public_name(str(adapter)) if adapter else None,
        repository=repository or None,
        revision=revision or None,
        licence=licence or (_stated_licence(folder) if folder else None),
        digests=digests,
    )


def _local_folder(ref: str) -> Path | None:
    """Find the folder of a model on this machine, without asking the hub."""
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return folder
    name, _, revision = ref.partition("@")
    if not HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision or None)
    return Path(found).parent if isinstance(found, str) else None


def _from_cache_path(folder: Path) -> tuple[str, str]:
    """Read repository and commit from a folder of the hub's cache; empty where it is none."""
    parts = folder.absolute().parts
    if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
        return "", ""
    return parts[-3].removeprefix("models--").replace("--", "/", 1), parts[-1]


def _has_weights(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether the weights in `folder` are those that the decoder was trained with."""
    found = ModelFiles(ref=str(folder), source=folder).digests()
    return found["weights"] == digests.get("weights")


def _stated_licence(folder: Path) -> str | None:
    """Read the licence from the model card in `folder`; None without a card that states one."""
    from huggingface_hub import ModelCard

    if not (folder / _CARD).is_file():
        return None
    licence = (
        ModelCard.load(folder / _CARD, ignore_metadata_errors=True).data.to_dict().get("license")
    )
    return licence if isinstance(licence, str) else None
