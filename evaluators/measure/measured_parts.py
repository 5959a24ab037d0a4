"""What an evaluation has measured so far: one file a part, whole or not taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.canonical import digest
from core.files import write_json


class PartialResultCache:
    """Parts of an evaluation in one folder, each bound to what it was measured on.

    Args:
        folder: outlives a kill.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str, subject: Any) -> list[Any] | None:
        """The values of the part `name`, or None where it is absent, damaged or of something else.

        Args:
            subject: what it must have been measured on, as plain values.
        """
        try:
            part = json.loads(self._path(name).read_bytes())
            values: list[Any] = part["values"]
            whole = part["digest"] == digest([subject, values])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # what cannot be read is measured again
        return values if whole else None

    def keep(self, name: str, subject: Any, values: list[Any]) -> None:
        """Write the part `name`, atomically.

        Raises:
            StorageError: the disk is full or read-only.
        """
        write_json(self._path(name), {"digest": digest([subject, values]), "values": values})

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
