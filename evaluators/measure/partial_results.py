"""A cache of partial results, by which an interrupted evaluation resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.documents.canonical import digest
from core.files import write_json


class PartialResultCache:
    """Partial results in one folder, a file each, bound to what they were measured on."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which outlives a kill."""
        self._folder = folder

    def load(self, name: str, subject: Any) -> list[Any] | None:
        """Return the cached values of `name`; None where absent, damaged or of another subject.

        Args:
            name: of the result.
            subject: what it must have been measured on, as a JSON value.
        """
        try:
            kept = json.loads(self._path(name).read_bytes())
            values: list[Any] = kept["values"]
            valid = kept["digest"] == digest([subject, values])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # what cannot be read is measured again
        return values if valid else None

    def store(self, name: str, subject: Any, values: list[Any]) -> None:
        """Write the values of `name`, atomically.

        Args:
            name: of the result.
            subject: what it was measured on, as a JSON value.
            values: JSON values.

        Raises:
            StorageError: the disk is full or read-only.
        """
        write_json(self._path(name), {"digest": digest([subject, values]), "values": values})

    def load_or_measure(
        self, name: str, subject: Any, measure: Callable[[], list[Any]]
    ) -> list[Any]:
        """Return the cached values of `name`; measure and cache them where there are none."""
        values = self.load(name, subject)
        if values is None:
            values = measure()
            self.store(name, subject, values)
        return values

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
