"""What no name holds can go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import StorageError
from core.files import bytes_below, storage_errors
from pipelines.artifacts.locks import exclusive_or_none
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import RECORD, Artifact, ArtifactRoot, Partial


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """A folder that nothing holds."""

    short: str
    path: Path
    size: int
    """Bytes on disk."""


def find_garbage(root: ArtifactRoot, *, partials: bool = False) -> list[Garbage]:
    """Artifacts that no name holds, by themselves or as something that a held one is made from.

    Args:
        root: the artifact root.
        partials: also what killed runs left; else that is kept, with what it is made from.
    """
    artifacts = root.artifacts()
    unfinished = root.partials()
    held = _held(root, artifacts, [] if partials else unfinished)
    gone: list[Artifact | Partial] = [a for a in artifacts if a.key not in held]
    if partials:
        gone.extend(unfinished)
    return [Garbage(short=a.short, path=a.path, size=bytes_below(a.path)) for a in gone]


def collect(root: ArtifactRoot, garbage: list[Garbage]) -> None:
    """Remove `garbage`.

    Raises:
        StorageError: a run is under way below this root.
    """
    with exclusive_or_none(root.in_use) as alone:
        if not alone:
            raise StorageError(
                f"{root.path}: a run is under way here, and may be reading what would go. "
                "Wait for it, then run gc again."
            )
        for item in garbage:
            with storage_errors(item.path):
                # without its record it is no artifact, wherever the removal is interrupted
                (item.path / RECORD).unlink(missing_ok=True)
                shutil.rmtree(item.path)


def _held(root: ArtifactRoot, artifacts: list[Artifact], unfinished: list[Partial]) -> set[str]:
    by_key = {a.key: a for a in artifacts}
    ahead = [t.partition("/")[2] for name in Refs(root).names() for t in name.artifacts]
    for partial in unfinished:
        ahead.extend(partial.inputs())
    held: set[str] = set()
    while ahead:
        key = ahead.pop()
        if key not in held:
            held.add(key)
            if key in by_key:
                ahead.extend(by_key[key].record["inputs"].values())
    return held
