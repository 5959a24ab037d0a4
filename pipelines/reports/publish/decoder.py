"""A trained decoder for others: an ordinary peft adapter with a model card, in a folder or a hub.

The card is made of records alone: keys of the data, the store and the decoder, its settings, and
what it reads with intervals. Nothing in it names a folder of this machine.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from activation_store.target.files import public_name
from core.errors import ConfigError, DamagedError, EndpointError, first_line
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.root import ArtifactRoot
from pipelines.reports.run.tables import reading_tables

TOKEN = "HF_TOKEN"
"""Environment variable with the hub's token; it is read from nowhere else."""
CARD = "README.md"
_FILES = ("adapter_config.json", "adapter_model.safetensors", "latentqa.json", "log.jsonl")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_RECORDED = ("rows", "questions", "steps", "best_step", "loss", "validation")


def judged(root: ArtifactRoot, train: Artifact) -> Artifact | None:
    """The newest evaluation of a decoder, or None."""
    own = [a for a in root.artifacts("evaluate") if a.record["inputs"].get("train") == train.key]
    return max(own, key=lambda a: str(a.record.get("created", "")), default=None)


def model_card(train: Artifact, evaluated: Artifact | None) -> str:
    """The card, as Markdown with the hub's header."""
    model = public_name(str(train.record["locations"]["model"]))
    header: dict[str, Any] = {
        "library_name": "peft",
        "tags": ["latentqa", "lora", "interpretability"],
    }
    if _HUB_ID.fullmatch(model.partition("@")[0]):
        header["base_model"] = model.partition("@")[0]
    keys = {"train": train.key, **train.record["inputs"]}
    if evaluated is not None:
        keys["evaluate"] = evaluated.key
    counts = train.record["counts"]
    facts = [f"| {name} | {counts[name]} |" for name in _RECORDED if name in counts]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        "# A LatentQA decoder",
        f"A LoRA adapter over `{model}` that answers questions about that model's own hidden "
        "activations (Latent Interpretation Tuning, "
        "[arXiv 2412.08686](https://arxiv.org/abs/2412.08686)).",
        "```console\n$ latentqa ask --decoder FOLDER --prompt TEXT --question TEXT\n```",
        "peft alone loads the adapter too: `PeftModel.from_pretrained(base, FOLDER)`. "
        "`latentqa.json` says which layer of which target it reads, and how activations enter.",
        "## What it reads",
        _reading(evaluated),
        "## How it was made",
        "| | |\n|---|---|\n" + "\n".join(facts),
        "Settings of the training:",
        f"```yaml\n{yaml.safe_dump(train.identity['config'], sort_keys=False)}```",
        "Keys of the artifacts:",
        "| step | key |\n|---|---|\n" + "\n".join(f"| {k} | `{v}` |" for k, v in keys.items()),
    ]
    return "\n\n".join(parts) + "\n"


def write_folder(folder: Path, train: Artifact, evaluated: Artifact | None) -> None:
    """Write the decoder and its card.

    Raises:
        ConfigError: `folder` holds something already.
        DamagedError: the decoder's bytes are not those committed.
    """
    if bad := train.damaged_files():
        raise DamagedError(
            f"{train.short}: {', '.join(bad)} is not as it was committed. "
            "Run the experiment again: it notices, and trains anew.",
            train.path,
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--folder {folder}: it is there already; expected a new or empty one.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        if (train.data / name).is_file():
            shutil.copyfile(train.data / name, folder / name)
    (folder / CARD).write_text(model_card(train, evaluated), encoding="utf-8")


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a folder that `write_folder` wrote; the repository is made where it is not there.

    Returns:
        Where it can be seen.

    Raises:
        ConfigError: `repo` is no name, or no token is in the environment.
        EndpointError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not _HUB_ID.fullmatch(repo):
        raise ConfigError(f"--repo {repo}: not a repository's name; expected ORG/NAME.")
    token = os.environ.get(TOKEN)
    if not token:
        raise ConfigError(
            f"--repo {repo}: {TOKEN} is not set; set it to a token that may write there, "
            "or give --folder alone."
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


def _reading(evaluated: Artifact | None) -> str:
    if evaluated is None:
        return "It has not been evaluated."
    return (
        "Answer loss in nats a token on held-out controls, with 95 % bootstrap intervals over "
        "controls. It reads where both gains are above zero and `right` is below the untrained "
        "decoder's.\n\n" + reading_tables(evaluated.record["counts"]["reading"])
    )
