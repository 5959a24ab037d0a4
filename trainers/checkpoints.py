"""Checkpoints of which it is known that they are whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from generators.files import fsync_tree, sha256_file, write_json

_SEAL = "whole.json"


def seal(folder: Path) -> None:
    """Sync a checkpoint and write the digests of its files, last."""
    fsync_tree(folder)
    files = {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file()}
    write_json(folder / _SEAL, files)


def latest(work: Path) -> Path | None:
    """The newest whole checkpoint in `work`; others are removed."""
    whole = []
    for folder in sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])):
        if _is_whole(folder):
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return whole[-1] if whole else None


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _SEAL).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return all(
        (folder / name).is_file() and sha256_file(folder / name) == digest
        for name, digest in files.items()
    )
