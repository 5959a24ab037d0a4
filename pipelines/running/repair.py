"""Mending the activation store of a finished dump: its bad shards are computed again, no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from activation_store.layout.config import CaptureConfig
from activation_store.read.verify import Finding, verify
from core.errors import DamagedError, StoreError
from core.progress import Progress, silent
from core.runtime import Runtime
from pipelines.artifacts.identity import StepIdentity
from pipelines.artifacts.locks import Holder, exclusive
from pipelines.artifacts.root import Artifact, ArtifactRoot
from pipelines.steps.reuse import lending_stores


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """What a repair did.

    Attributes:
        findings: what was wrong.
        forward_tokens: tokens that the target was run on.
        same: whether the output is byte for byte what it was when it was first finished.
    """

    findings: tuple[Finding, ...]
    forward_tokens: int
    same: bool


def repair(
    root: ArtifactRoot,
    artifact: Artifact,
    *,
    runtime: Runtime,
    progress: Progress = silent,
    waiting: Callable[[Holder | None], None] = lambda holder: None,
) -> Repair:
    """Verify the store of `artifact`, and make anew what is not as it was committed.

    Raises:
        StoreError: the conversations that it was made from are not in the root any more, or the
            target is not the one that it was made of.
        DamagedError: the artifact's own record or identity is lost.
        ModelError: the target cannot be found or loaded.
        StorageError: the disk is full or read-only.
    """
    identity = _identity(artifact)
    with exclusive(root.lock(identity.kind, identity.key), waiting):
        findings = verify(artifact.data).findings
        if not findings:
            return Repair(findings=(), forward_tokens=0, same=True)
        tokens, mended = _again(root, artifact, identity, runtime, progress)
    return Repair(findings=findings, forward_tokens=tokens, same=mended.output == artifact.output)


def _again(
    root: ArtifactRoot,
    artifact: Artifact,
    identity: StepIdentity,
    runtime: Runtime,
    progress: Progress,
) -> tuple[int, Artifact]:
    from activation_store.target.files import resolve_model
    from activation_store.write.dump import dump

    record = artifact.record
    key = identity.inputs["conversations"]["key"]
    source = next((found for found in root.artifacts() if found.key == key), None)
    if source is None:
        raise StoreError(
            f"{artifact.short}: the conversations that it was made from ({key[:16]}) are not in "
            f"{root.path}. Run the experiment again."
        )
    locations = record["locations"]
    model = resolve_model(locations["model"], locations["adapter"])
    if model.digests() != dict(identity.external):
        raise StoreError(
            f"{artifact.short}: {locations['model']} is another model than the one that it was "
            "made of. Put that one back, or run the experiment again."
        )
    root.demote(artifact)
    partial = root.begin(identity)
    counts = dump(
        source.data,
        partial.data,
        config=CaptureConfig.model_validate(identity.config),
        model=model,
        runtime=runtime,
        progress=progress,
        others=lending_stores(root.path, runtime),
    )
    return counts["forward_tokens"], root.commit(identity, dict(record))


def _identity(artifact: Artifact) -> StepIdentity:
    payload = artifact.identity
    try:
        return StepIdentity(
            **{name: payload[name] for name in ("kind", "version", "config", "inputs", "external")}
        )
    except KeyError as error:
        raise DamagedError(
            f"{artifact.path}: its identity lacks {error}.", artifact.path
        ) from error
