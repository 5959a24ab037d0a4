"""Checkpoints sealed by the digests of their files, so that a damaged one is never resumed."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.files import fsync_tree, sha256_file, write_json

_SEAL = "whole.json"
_STATE = "trainer_state.json"
# a disk with less room than this is full: no adapter fits
_PROBE_BYTES = 1 << 20


def checkpoint_folder(work: Path, step: int) -> Path:
    """Return the folder of the checkpoint of optimiser step `step`, as transformers names it."""
    return work / f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def seal(checkpoint: Path) -> None:
    """Sync a checkpoint and write the digests of its files, last."""
    fsync_tree(checkpoint)
    files = {p.name: sha256_file(p) for p in sorted(checkpoint.iterdir()) if p.is_file()}
    write_json(checkpoint / _SEAL, files)


def keep_whole(work: Path) -> Path | None:
    """Remove the first damaged checkpoint in `work` and all after it; return the last one left.

    The best checkpoint may be any of them, so a run can resume only where all are whole.
    """
    found: Path | None = None
    broken = False
    for checkpoint in sorted(work.glob("checkpoint-*"), key=step_of):
        broken = broken or not _is_whole(checkpoint)
        if broken:
            shutil.rmtree(checkpoint)
        else:
            found = checkpoint
    return found


def newest(work: Path) -> Path:
    """Return the checkpoint of the last step; `keep_whole` must have been called before."""
    return max(work.glob("checkpoint-*"), key=step_of)


def log_history(checkpoint: Path) -> list[dict[str, Any]]:
    """Return what transformers had logged when it wrote the checkpoint."""
    history: list[dict[str, Any]] = json.loads((checkpoint / _STATE).read_bytes())["log_history"]
    return history


@contextlib.contextmanager
def surface_full_disk(work: Path) -> Iterator[None]:
    """Turn errors of torch and safetensors on a full disk into an OSError with its errno.

    Raises:
        OSError: the disk of `work` has no room; every other error passes unchanged.
    """
    try:
        yield
    except OSError:
        raise
    except Exception:
        with tempfile.TemporaryFile(dir=work) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
        raise


def _is_whole(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / _SEAL).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return all(
        (checkpoint / name).is_file() and sha256_file(checkpoint / name) == digest
        for name, digest in files.items()
    )
