"""Asking a trained decoder questions about any conversation.

```python
from pipelines.reader import load

reader = load("latentqa_eval")
reader.ask("You are a pirate.", "Who speaks here?")
```
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from activation_store.model_files import ModelFiles, resolve_model
from activation_store.quiet import quiet_libraries
from activation_store.runtime import Runtime
from activation_store.target import pick_device
from decoder.model import SIDECAR, Decoder, read_sidecar
from generators.errors import DamagedError, ModelError
from pipelines.artifacts import RECORD, ArtifactRoot
from pipelines.asked import Asked, Prompt
from pipelines.asking import AskOptions, Reader
from pipelines.refs import Refs

__all__ = ["AskOptions", "Asked", "Prompt", "Reader", "load"]


def load(
    ref: str,
    *,
    root: Path | None = None,
    model: str | None = None,
    adapter: str | None = None,
    device: str = "auto",
) -> Reader:
    """The decoder that `ref` names, with its target.

    Args:
        ref: a REF of a train artifact (a path, kind/key-prefix or name[:version]), or a folder
            that a decoder was copied to.
        root: the artifact root; None takes `LATENTQA_ROOT`, else `artifacts`.
        model: where the target is now; None takes what the decoder was trained with.
        adapter: where the target's own adapter is now, likewise.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        ReferenceError_: `ref` names nothing, or no decoder.
        ModelError: the target is not where it was.
        StoreError: `model` is not the decoder's target.
        DamagedError: the decoder's bytes are not those committed.
    """
    found = _find(ref, root or Path(os.environ.get("LATENTQA_ROOT", "artifacts")))
    with quiet_libraries():
        decoder = Decoder.load(
            found.folder,
            _target(found, model, adapter),
            dtype="float32",
            device=pick_device(Runtime(device=device)),
        )
    return Reader(found.name, decoder)


@dataclass(frozen=True, slots=True)
class _Found:
    """A decoder on disk; `model` and `adapter` say where its target was."""

    name: str
    folder: Path
    model: str
    adapter: str | None


def _find(ref: str, root: Path) -> _Found:
    folder = Path(ref).expanduser()
    if (folder / SIDECAR).is_file() and not (folder.parent / RECORD).is_file():
        _, binding = read_sidecar(folder)
        return _Found(ref, folder, binding.model, binding.adapter)
    artifact = Refs(ArtifactRoot(root.expanduser())).resolve(ref, "train")
    if bad := artifact.damaged_files():
        raise DamagedError(
            f"{artifact.short}: {', '.join(bad)} is not as it was committed. "
            "Run the experiment again: it notices, and trains anew.",
            artifact.path,
        )
    # a decoder's own files name no folder of a machine, its record does
    where = artifact.record["locations"]
    return _Found(artifact.short, artifact.data, where["model"], where["adapter"])


def _target(found: _Found, model: str | None, adapter: str | None) -> ModelFiles:
    try:
        return resolve_model(model or found.model, adapter or found.adapter)
    except ModelError as error:
        if model is not None:
            raise
        raise ModelError(
            f"decoder {found.name}: its target is not where it was when it was trained: {error} "
            "Name it with --model."
        ) from error
