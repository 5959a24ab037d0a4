"""Reading the files of artifacts for pages that show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import DamagedError
from pipelines.reports.run.inputs import ReportStep


def artifact_file(step: ReportStep | None, name: str) -> Path | None:
    """Return a file of a step's output; None where the step or the file is not there."""
    path = step.path / "data" / name if step else None
    return path if path and path.is_file() else None


def json_object(text: str, path: Path) -> dict[str, Any]:
    """Parse a JSON object out of the file `path`.

    Raises:
        DamagedError: it is no JSON.
    """
    try:
        value: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedError(
            f"{path}: not readable as JSON ({error}). Delete its artifact and run again.", path
        ) from error
    return value
