"""How two artifacts, or two runs, differ: field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.identity import Difference, StepIdentity, differences
from pipelines.artifacts.root import ArtifactRoot


def compare(left: Artifact, right: Artifact) -> list[Difference]:
    """Fields of identity, output and packages in which two artifacts differ."""
    found = differences(left.identity, right.identity)
    for field in ("output", "source"):
        if left.record.get(field) != right.record.get(field):
            found.append(
                Difference(field=field, left=left.record.get(field), right=right.record.get(field))
            )
    found.extend(
        differences(
            {"packages": left.record.get("packages", {})},
            {"packages": right.record.get("packages", {})},
        )
    )
    return found


def nearest(root: ArtifactRoot, identity: StepIdentity) -> tuple[Artifact, list[Difference]] | None:
    """The complete artifact of the same kind with the fewest other fields, and those fields.

    The newest of several equally near ones is taken.
    """
    return nearest_payload(root, identity.kind, identity.payload())


def nearest_payload(
    root: ArtifactRoot, kind: str, payload: Mapping[str, Any]
) -> tuple[Artifact, list[Difference]] | None:
    """As `nearest`, for an identity that is known in part: only the fields of `payload` count."""
    best: tuple[Artifact, list[Difference]] | None = None
    for artifact in root.artifacts(kind):
        there = {name: value for name, value in artifact.identity.items() if name in payload}
        found = differences(there, payload)
        if best is None or len(found) <= len(best[1]):
            best = (artifact, found)
    return best
