"""Locks that tell which runs of an orchestrator are alive.

A run holds a lock in the artifact root for as long as its process lives; a kill leaves the file
behind, free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pipelines.artifacts.locks import exclusive_or_none
from pipelines.artifacts.root import ArtifactRoot

_BEGIN = "flow-"


@contextlib.contextmanager
def hold_run_lock(root: ArtifactRoot, run: str) -> Iterator[None]:
    """Hold the lock of a run, and remove it at the end."""
    path = root.path / "locks" / f"{_BEGIN}{run}.lock"
    with exclusive_or_none(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def clear_killed_runs(root: ArtifactRoot, mark: Callable[[str], bool | None]) -> list[str]:
    """Mark the runs that a kill ended, and remove their locks.

    Args:
        root: the artifact root that the runs wrote to.
        mark: marks a run by its id; None where that cannot be done now, and its lock stays.

    Returns:
        The ids of the runs that were marked.
    """
    marked = []
    for path in sorted((root.path / "locks").glob(f"{_BEGIN}*.lock")):
        run = path.stem.removeprefix(_BEGIN)
        with exclusive_or_none(path) as free:
            if free and mark(run) is not None:
                path.unlink(missing_ok=True)
                marked.append(run)
    return marked
