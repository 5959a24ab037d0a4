"""JSON files that carry the digest of their own content, so that any changed byte is detected."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.documents.canonical import digest
from core.documents.strict_json import load_json
from core.errors import DamagedError
from core.files import json_bytes, read_file, write_bytes

CHECKSUM_FIELD = "checksum"


def write_checksummed_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` and its digest, atomically and durably.

    Raises:
        StorageError: the disk is full or read-only.
    """
    write_bytes(path, checksummed_json(value))


def checksummed_json(value: dict[str, Any]) -> bytes:
    """Return the bytes that `write_checksummed_json` writes."""
    return json_bytes({**value, CHECKSUM_FIELD: digest(value)})


def read_checksummed_json(path: Path, fields: Iterable[str] = ()) -> dict[str, Any]:
    """Read what `write_checksummed_json` wrote, without its checksum.

    Args:
        path: the file.
        fields: fields that a file of its kind has, so that another file is not taken for it.

    Raises:
        DamagedError: the file is missing, is not JSON, or is not what was written.
    """
    try:
        data = read_file(path)
        value = load_json(data)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: the file is missing.", path) from error
    except ValueError as error:
        raise DamagedError(f"{path}: not JSON ({error}).", path) from error
    # the bytes are compared too: 1E-7 is the same number as 1e-7
    as_written = isinstance(value, dict) and json_bytes(value) == data
    if not as_written or value.pop(CHECKSUM_FIELD, None) != digest(value):
        raise DamagedError(f"{path}: its content does not match its checksum.", path)
    if lacking := set(fields) - value.keys():
        raise DamagedError(f"{path}: it lacks {sorted(lacking)}; is it another file?", path)
    return dict(value)
