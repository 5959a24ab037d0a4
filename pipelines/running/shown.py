"""What an orchestrator's UI shows of a run: its keys, tables and pictures, as plain values."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PICTURE = "reading.png"
"""The report's loss panel, where it has one."""


def artifact_key(experiment: str, step: str) -> str:
    """Return a key of lower case letters, digits and dashes, as Prefect wants it."""
    return f"latentqa-{experiment}-{step}".replace("_", "-")


def count_rows(counts: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield a row for each number of a record, nested ones under a dotted name."""
    for name, value in counts.items():
        if isinstance(value, Mapping):
            yield from count_rows(value, f"{prefix}{name}.")
        else:
            yield {"what": prefix + name, "value": value}


def data_uri(picture: Path) -> str:
    """Return a PNG file as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
