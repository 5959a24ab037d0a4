"""Two versions of a data set side by side: counts, quality, drift of distributions, sample rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.documents.canonical import digest
from core.records.tables import Conversation
from generators.quality.describe import describe_dataset
from generators.quality.findings import FlagCounts
from pipelines.artifacts.artifact import Artifact
from pipelines.versions.drift import Drift, Rows, measure_drift
from pipelines.versions.tables import control_ids, read_version, recorded_flags, rows_of_controls

COUNTS = ("controls", "examples", "groups", "questions", "distinct_questions", "distinct_answers")
SAMPLES = 3
"""Sample rows of each side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """A row that one version has and the other has not."""

    kind: str
    view: str
    control: str
    question: str | None
    answer: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionComparison:
    """What differs between the rows of two versions; pairs are (left, right)."""

    counts: dict[str, tuple[int, int]]
    kept: int
    """Controls of both versions."""
    added: int
    """Controls of the right version alone."""
    removed: int
    """Controls of the left version alone."""
    flags: dict[str, tuple[float, float]]
    """Share of rows with each flag: of the steps `quality` where both versions have one, else of
    the rules that need no LLM."""
    drift: tuple[Drift, ...]
    """Of all rows, the furthest distribution first."""
    added_rows: tuple[SampleRow, ...]
    removed_rows: tuple[SampleRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)


def compare_versions(
    left: Mapping[str, Artifact], right: Mapping[str, Artifact]
) -> VersionComparison | None:
    """Compare the rows of two versions.

    Args:
        left: artifacts of the earlier version, by step.
        right: of the later one.

    Returns:
        None where one of them has no rows.

    Raises:
        DataError: a table cannot be read.
    """
    before, now = read_version(left), read_version(right)
    if before is None or now is None:
        return None
    told = [describe_dataset(rows.conversations, rows.questions) for rows in (before, now)]
    flags = [FlagCounts.model_validate(one["checks"]) for one in told]
    if "quality" in left and "quality" in right:
        flags = [recorded_flags(side["quality"]) for side in (left, right)]
    ids = [set(control_ids(rows)) for rows in (before, now)]
    return VersionComparison(
        counts={name: (told[0][name], told[1][name]) for name in COUNTS},
        kept=len(ids[0] & ids[1]),
        added=len(ids[1] - ids[0]),
        removed=len(ids[0] - ids[1]),
        flags={
            name: (flags[0].share(name), flags[1].share(name))
            for name in sorted({*flags[0].flags, *flags[1].flags})
        },
        drift=tuple(measure_drift(before, now)),
        added_rows=_samples(rows_of_controls(now, ids[1] - ids[0])),
        removed_rows=_samples(rows_of_controls(before, ids[0] - ids[1])),
    )


def _samples(rows: Rows) -> tuple[SampleRow, ...]:
    """Draw a few rows, each of another control, the same ones every time."""
    asked = {question.example_id: question for question in reversed(rows.questions)}
    drawn: Sequence[Conversation] = sorted(
        {row.control_id: row for row in rows.conversations}.values(),
        key=lambda row: digest(["sample", row.control_id]),
    )[:SAMPLES]
    return tuple(
        SampleRow(
            kind=row.kind,
            view=row.view,
            control=row.control,
            question=asked[row.example_id].question if row.example_id in asked else None,
            answer=asked[row.example_id].answer if row.example_id in asked else None,
        )
        for row in drawn
    )
