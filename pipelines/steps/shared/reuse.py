"""The activation stores of an artifact root whose rows a new store can take over."""

from __future__ import annotations

from pathlib import Path

from core.runtime import Runtime
from pipelines.artifacts.root import ArtifactRoot

DUMP = "dump"


def find_reusable_stores(root: Path, runtime: Runtime) -> list[Path]:
    """Return the folders of the finished stores below the artifact root `root`, newest first.

    None where `runtime.reuse_rows` is off.
    """
    if not runtime.reuse_rows:
        return []
    return [artifact.data for artifact in reversed(ArtifactRoot(root).artifacts(DUMP))]
