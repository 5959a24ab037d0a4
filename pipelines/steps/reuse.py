"""The stores of an artifact root from which a new one takes over what they share."""

from __future__ import annotations

from pathlib import Path

from core.runtime import Runtime
from pipelines.artifacts.root import ArtifactRoot

DUMP = "dump"


def lending_stores(root: Path, runtime: Runtime) -> list[Path]:
    """Folders of the finished stores below the artifact root `root`, the newest first.

    None where `runtime.reuse_rows` is off.
    """
    if not runtime.reuse_rows:
        return []
    return [artifact.data for artifact in reversed(ArtifactRoot(root).artifacts(DUMP))]
