"""Loading a trained decoder with its target, to ask it about any conversation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from activation_store.model_files.files import ModelFiles, public_name, resolve_model
from activation_store.model_files.quiet import quiet_libraries
from activation_store.target.load import load_model, load_tokenizer, model_shape
from activation_store.tokens.config import TemplateConfig
from core.errors import ModelError
from core.runtime import Runtime
from decoder.binding import SIDECAR, read_sidecar
from decoder.model import Decoder
from decoder.sources.target_run import TargetNetwork
from pipelines.artifacts.artifact import RECORD, Artifact
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.asking.ood import find_ood_detector
from pipelines.asking.reader import LoadedForeignTarget, Reader

SPREAD = "spread"
"""Device that is all GPUs, for a target that is too large for one."""


def load(
    ref: str,
    *,
    root: Path,
    model: str | None = None,
    adapter: str | None = None,
    device: str = "auto",
    foreign_target: str | None = None,
    foreign_adapter: str | None = None,
) -> Reader:
    """Load a decoder with its target.

    Args:
        ref: a REF of a train artifact, or a folder that a decoder was copied to.
        root: the artifact root.
        model, adapter, device, foreign_target, foreign_adapter: as for `latentqa.load`.

    Raises: as `latentqa.load`.
    """
    found = _find(ref, root)
    target = _target(found, model, adapter)
    runtime = Runtime(spread=True) if device == SPREAD else Runtime(device=device)
    with quiet_libraries():
        decoder = Decoder.load(found.folder, target, "auto", runtime)
        foreign = None
        if foreign_target is not None or foreign_adapter is not None:
            other = resolve_model(foreign_target or target.ref, foreign_adapter)
            foreign = _foreign(other, target, decoder, runtime)
    return Reader(
        found.name,
        decoder,
        foreign=foreign,
        find_ood_detector=lambda: find_ood_detector(found.artifact, decoder),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A decoder on disk; `model` and `adapter` are the references of its target."""

    name: str
    folder: Path
    model: str
    adapter: str | None
    artifact: Artifact | None = None


def _find(ref: str, root: Path) -> _Found:
    folder = Path(ref).expanduser()
    if (folder / SIDECAR).is_file() and not (folder.parent / RECORD).is_file():
        _, binding = read_sidecar(folder)
        return _Found(ref, folder, binding.model, binding.adapter)
    artifact = Refs(ArtifactRoot(root.expanduser())).resolve(ref, "train").checked()
    # a decoder's own files name no folder of a machine, its record does
    where = artifact.record["locations"]
    return _Found(artifact.short, artifact.data, where["model"], where["adapter"], artifact)


def _target(found: _Found, model: str | None, adapter: str | None) -> ModelFiles:
    try:
        _, binding = read_sidecar(found.folder)
        template = TemplateConfig.model_validate(binding.template)
        return resolve_model(model or found.model, adapter or found.adapter, template=template)
    except ModelError as error:
        if model is not None:
            raise
        raise ModelError(
            f"decoder {found.name}: its target is no longer where it was during training: "
            f"{error} Give its new place with --model."
        ) from error


def _foreign(
    other: ModelFiles, target: ModelFiles, decoder: Decoder, runtime: Runtime
) -> LoadedForeignTarget:
    """Load another target beside the decoder.

    Raises:
        ModelError: its shape is not that of the decoder's own.
    """
    shapes = [model_shape(files) for files in (other, target)]
    found, own = ((shape.n_blocks, shape.d_model) for shape in shapes)
    if found != own:
        raise ModelError(
            f"model {other.ref}: has {found[0]} blocks of width {found[1]}, expected "
            f"{own[0]} of width {own[1]} as in the decoder's own target. A foreign target "
            "must have the same shape."
        )
    theirs, ours = other.digests(), target.digests()
    return LoadedForeignTarget(
        model=public_name(other.ref),
        adapter=public_name(str(other.adapter)) if other.adapter else None,
        differs=tuple(
            sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
        ),
        source=TargetNetwork(
            load_model(other, dtype=decoder.dtype, device=decoder.device, runtime=runtime),
            load_tokenizer(other),
        ),
    )
