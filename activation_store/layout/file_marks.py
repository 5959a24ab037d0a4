"""Marks of files: size and digest, by which a file is known again.

A digest that is taken here is blake3's, which costs a third of sha256, and says so: `blake3:` and
64 hex digits. One without a name is sha256, as plan.json has it of its few small files, and as the
records of older stores have it; those are verified by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from core.errors import StoreError

Fault = Literal["missing", "truncated", "changed"]
Mark = tuple[int, str]
"""Size in bytes and digest of a file; the digest begins with its algorithm's name and a colon."""
_NAME = "blake3"
_BY_NAME: dict[str, Callable[[], Any]] = {_NAME: blake3, "": hashlib.sha256}


class Digest:
    """The digest of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._digest = blake3()

    def update(self, piece: memoryview | bytes) -> None:
        """Go on with these bytes. Other threads run meanwhile."""
        self._digest.update(piece)

    def __str__(self) -> str:
        return f"{_NAME}:{self._digest.hexdigest()}"


def file_mark(path: Path) -> Mark:
    """The mark of a file as it is now."""
    return path.stat().st_size, f"{_NAME}:{_digest(path, _NAME)}"


def is_current(mark: Mark) -> bool:
    """Whether a mark is one that would be taken today."""
    return mark[1].startswith(f"{_NAME}:")


def broken(root: Path, files: Mapping[str, Mark]) -> dict[str, Fault]:
    """What is wrong with files of known marks, by path below `root`; all are read.

    Raises:
        StoreError: a mark is by an algorithm that this program does not know.
    """
    faults = {name: _fault(root / name, mark) for name, mark in files.items()}
    return {name: fault for name, fault in faults.items() if fault is not None}


def _fault(path: Path, mark: Mark) -> Fault | None:
    size, known = mark
    name, _, digits = known.rpartition(":")
    if name not in _BY_NAME:
        raise StoreError(
            f"{path}: its digest is by {name}, this program knows blake3 and sha256. "
            "Read the store with a newer latentqa."
        )
    if not path.is_file():
        return "missing"
    if path.stat().st_size < size:
        return "truncated"
    return None if _digest(path, name) == digits else "changed"


def _digest(path: Path, name: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, _BY_NAME[name]).hexdigest()
