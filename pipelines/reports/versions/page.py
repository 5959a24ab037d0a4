"""The page of a firing: which version it made, and what the gate found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.files import write_bytes
from pipelines.reports.pages.render import render_page

HEADLINES = {
    "promoted": "{version} is now the latest version.",
    "refused": "{version} was refused; {last_good} stays the latest version.",
    "unchanged": "No change: {version} is already the latest version.",
}


def write_firing(experiment: str, firing: Mapping[str, Any], path: Path) -> None:
    """Write the page of a finished firing.

    Args:
        experiment: name of the experiment.
        firing: its record (pipelines/versions/journal.py).
        path: the HTML file.

    Raises:
        StorageError: the disk is full or read-only.
    """
    headline = HEADLINES[firing["state"]].format(
        version=firing["version"], last_good=firing["last_good"] or "no version"
    )
    page = render_page(
        "versions/firing.html",
        experiment=experiment,
        firing=firing,
        headline=headline,
    )
    write_bytes(path, page.encode())
