"""Files of artifacts as plain values, for pages that show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DamagedError
from core.wording import interval
from evaluators.stats.estimates import Estimate
from pipelines.reports.run.inputs import ReportStep


@dataclass(frozen=True, slots=True)
class Leaf:
    """An estimate with its 95 % interval (None where there are too few controls)."""

    estimate: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        """Format as `0.74 [0.66, 0.82]`."""
        return interval(self.estimate, self.low, self.high)

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above zero; never so without an interval."""
        return self.low is not None and self.low > 0

    @property
    def off_zero(self) -> bool:
        """Whether the whole interval is on one side of zero; never so without an interval."""
        return self.above_zero or (self.high is not None and self.high < 0)


def leaf_of(value: Mapping[str, Any] | Estimate | None) -> Leaf | None:
    """An estimate as metrics and tables hold it; None where nothing was measured."""
    if isinstance(value, Estimate):
        value = value.model_dump()
    if not value or value.get("estimate") is None:
        return None
    return Leaf(value["estimate"], value.get("low"), value.get("high"), int(value.get("n") or 0))


def artifact_file(step: ReportStep | None, name: str) -> Path | None:
    """A file of a step's output; None where the step or the file is not there."""
    path = step.path / "data" / name if step else None
    return path if path and path.is_file() else None


def table_rows(path: Path | None) -> list[dict[str, Any]]:
    """Rows of a Parquet file; none where there is no file.

    Raises:
        DamagedError: the file is there and cannot be read.
    """
    if path is None:
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise DamagedError(
            f"{path}: not a readable Parquet file ({error}). Delete its artifact and run again.",
            path,
        ) from error
    return rows


def json_object(text: str, path: Path) -> dict[str, Any]:
    """What a JSON text of the file `path` holds.

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
