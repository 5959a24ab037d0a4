"""What a report is made of: everything it shows, and no way to look further."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportStep:
    """One finished step of a run."""

    step: str
    """Name of the step (`conversations`, `questions`, `dump`, `train`, `evaluate`)."""
    key: str
    """Whole key of its artifact, 64 hex digits."""
    path: Path
    """Folder of its artifact; the output is below `data/`."""
    record: dict[str, Any]
    """The artifact's record (pipelines/artifacts/records.py)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportInputs:
    """One finished experiment."""

    experiment: str
    """Name of the experiment."""
    config: dict[str, Any]
    """The whole experiment file, defaults included."""
    command: str
    """The command line that makes this run again."""
    metrics: dict[str, Any]
    """What `run --json` prints as `metrics`."""
    steps: tuple[ReportStep, ...]
    """The steps in the order in which they ran."""
