"""Digests of large files, remembered with size, times and inode, so that a rerun reads none."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.documents.strict_json import load_json
from core.files import read_file, remove_leftovers, sha256_file, write_json

_NAME = "digests.json"
_TICK_NS = 20_000_000
"""Longer than a tick of the clock by which a file system tells two changes apart."""


def cache_folder() -> Path:
    """Return `LATENTQA_CACHE`, else `XDG_CACHE_HOME/latentqa`, else `~/.cache/latentqa`."""
    if own := os.environ.get("LATENTQA_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "latentqa"


def file_digest(path: Path) -> str:
    """Return the sha256 of `path`; it is read only if its size, a time or its inode changed.

    The time of the last change of the inode is among them: it cannot be set, so a file that was
    replaced under its old modification time is read again.
    """
    return file_digests([path])[path.name]


def file_digests(paths: list[Path]) -> dict[str, str]:
    """Return the sha256 of each of `paths`, by file name; with its folder where two have one name.

    A file that changed a moment ago is not remembered: if it changes again within a tick of the
    file system's clock, nothing but its bytes tells.
    """
    cache_path = cache_folder() / _NAME
    cache = _load(cache_path)
    out: dict[str, str] = {}
    fresh: dict[str, list[Any]] = {}
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        top = os.path.commonpath([path.parent for path in paths])
        names = [path.relative_to(top).as_posix() for path in paths]
    for name, path in zip(names, paths, strict=True):
        real = path.resolve()
        stat = real.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
        known = cache.get(str(real))
        if known is None or known[0] != state:
            known = [state, sha256_file(real)]
            if time.time_ns() - stat.st_ctime_ns > _TICK_NS:
                fresh[str(real)] = known
        out[name] = known[1]
    if fresh:
        # a cache that cannot be written costs time, never a result
        with contextlib.suppress(OSError):
            remove_leftovers(cache_path)
            there = {
                path: known for path, known in _load(cache_path).items() if os.path.exists(path)
            }
            write_json(cache_path, {**there, **fresh})
    return out


def _load(path: Path) -> Mapping[str, list[Any]]:
    try:
        stat = path.stat()
        return _parse(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=1)
def _parse(path: Path, *state: int) -> Mapping[str, list[Any]]:
    """Return what the cache holds in this state of its file, which is written aside."""
    cache = load_json(read_file(path))
    return cache if isinstance(cache, dict) else {}
