"""JSON files that carry the digest of their own content, so that no flipped byte goes unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generators.canonical import digest
from generators.errors import DamagedError
from generators.files import write_json

SEAL = "seal"


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write `value` and its digest, atomically and durably.

    Raises:
        StorageError: the disk is full or read-only.
    """
    write_json(path, {**value, SEAL: digest(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The value that `write_sealed` wrote, without its seal.

    Raises:
        DamagedError: the file is missing, is not JSON, or is not what was written.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: the file is missing.", path) from error
    except ValueError as error:
        raise DamagedError(f"{path}: not JSON ({error}).", path) from error
    if not isinstance(value, dict) or value.pop(SEAL, None) != digest(value):
        raise DamagedError(f"{path}: its content is not the one that was sealed.", path)
    return value
