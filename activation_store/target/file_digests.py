"""Digests of large files, remembered by path, size, time and inode, so that a rerun reads none."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from core.canonical import digest
from core.files import sha256_file, write_json

_NAME = "digests.json"


def cache_folder() -> Path:
    """`LATENTQA_CACHE`, else `XDG_CACHE_HOME/latentqa`, else `~/.cache/latentqa`."""
    if own := os.environ.get("LATENTQA_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "latentqa"


def file_digest(path: Path) -> str:
    """sha256 of `path`; read again only where size, modification time or inode changed."""
    return file_digests([path])[path.name]


def file_digests(paths: list[Path]) -> dict[str, str]:
    """sha256 of each of `paths`, by file name."""
    memory_path = cache_folder() / _NAME
    memory = _load(memory_path)
    out: dict[str, str] = {}
    fresh: dict[str, list] = {}
    for path in paths:
        real = path.resolve()
        stat = real.stat()
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev]
        known = memory.get(str(real))
        if known is None or known[0] != mark:
            known = fresh[str(real)] = [mark, sha256_file(real)]
        out[path.name] = known[1]
    if fresh:
        # a memory that cannot be kept costs time, never a result
        with contextlib.suppress(OSError):
            write_json(memory_path, {**_load(memory_path), **fresh})
    return out


def files_digest(paths: list[Path]) -> str:
    """One digest over names and contents of `paths`."""
    return digest(file_digests(paths))


def _load(path: Path) -> dict[str, list]:
    try:
        memory = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return memory if isinstance(memory, dict) else {}
