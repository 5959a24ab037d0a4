"""Field-by-field differences between two artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.cache_key import Difference, differences


def compare_artifacts(left: Artifact, right: Artifact) -> list[Difference]:
    """Return the fields of identity, output, code and packages in which two artifacts differ."""
    found = differences(left.identity, right.identity)
    for field in ("output", "store_root", "source"):
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


def nearest(
    artifacts: Iterable[Artifact], payload: Mapping[str, Any]
) -> tuple[Artifact, list[Difference]] | None:
    """Return the artifact whose identity differs from `payload` in the fewest fields, and those.

    Args:
        artifacts: of one kind, oldest first; the newest of several equally near ones is taken.
        payload: an identity, or the part of one that is known; no other field counts.
    """
    best: tuple[Artifact, list[Difference]] | None = None
    for artifact in artifacts:
        there = {name: value for name, value in artifact.identity.items() if name in payload}
        found = differences(there, payload)
        if best is None or len(found) <= len(best[1]):
            best = (artifact, found)
    return best
