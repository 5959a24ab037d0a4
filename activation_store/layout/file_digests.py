"""Sizes and blake3 digests of a store's files, which show whether a file is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from blake3 import blake3

Damage = Literal["missing", "truncated", "changed"]


class FileDigest(NamedTuple):
    """Size in bytes, and blake3 digest as 64 hex digits, of a file."""

    size: int
    blake3: str


def digest_file(path: Path) -> FileDigest:
    """Read a file and return its size and digest."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, blake3).hexdigest()  # type: ignore[arg-type]
    return FileDigest(path.stat().st_size, digest)


def digest_bytes(data: bytes) -> FileDigest:
    """Return the size and digest that a file with this content has."""
    return FileDigest(len(data), blake3(data).hexdigest())


def find_damage(root: Path, files: Mapping[str, FileDigest]) -> dict[str, Damage]:
    """Read files and say which are not as they were written, and how.

    Args:
        root: folder of the files.
        files: expected size and digest by path below `root`.
    """
    found = {name: _damage_of(root / name, expected) for name, expected in files.items()}
    return {name: damage for name, damage in found.items() if damage is not None}


def _damage_of(path: Path, expected: FileDigest) -> Damage | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size < expected.size:
        return "truncated"
    return None if digest_file(path) == expected else "changed"
