"""JSON files that carry the digest of their own content, so that no flipped byte goes unseen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.canonical import digest
from core.errors import DamagedError
from core.files import json_bytes, write_bytes

SEAL = "seal"


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write `value` and its digest, atomically and durably.

    Raises:
        StorageError: the disk is full or read-only.
    """
    write_bytes(path, sealed(value))


def sealed(value: dict[str, Any]) -> bytes:
    """The bytes that `write_sealed` writes."""
    return json_bytes({**value, SEAL: digest(value)})


def read_sealed(path: Path, fields: Iterable[str] = ()) -> dict[str, Any]:
    """The value that `write_sealed` wrote, without its seal.

    Args:
        fields: what a file of its kind must have, so that another sealed file is not taken for it.

    Raises:
        DamagedError: the file is missing, is not JSON, or is not what was written.
    """
    try:
        data = path.read_bytes()
        value = json.loads(data)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: the file is missing.", path) from error
    except ValueError as error:
        raise DamagedError(f"{path}: not JSON ({error}).", path) from error
    # bytes too: 1E-7 is the same number as 1e-7
    as_written = isinstance(value, dict) and json_bytes(value) == data
    if not as_written or value.pop(SEAL, None) != digest(value):
        raise DamagedError(f"{path}: its content is not the one that was sealed.", path)
    if lacking := set(fields) - value.keys():
        raise DamagedError(f"{path}: it lacks {sorted(lacking)}; is it another file?", path)
    return value
