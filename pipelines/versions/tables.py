"""The rows of a version: the last tables of its run, read from its artifacts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from core.records.table_files import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_questions,
)
from core.records.tables import with_questions_of_completed
from generators.quality.findings import FlagCounts, QualityFindings
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.data_tables import TABLE_STEPS, find_table
from pipelines.versions.drift import Rows


def read_version(artifacts: Mapping[str, Artifact]) -> Rows | None:
    """Read the rows of a version; None where its run made no tables.

    Args:
        artifacts: of its run, by step.

    Raises:
        DataError: a table cannot be read.
    """
    folders = [artifacts[step].checked().data for step in TABLE_STEPS if step in artifacts]
    conversations, questions = (
        find_table(folders, name) for name in (CONVERSATIONS_FILE, QUESTIONS_FILE)
    )
    if conversations is None or questions is None:
        return None
    rows = read_conversations(conversations)
    return Rows(rows, with_questions_of_completed(rows, read_questions(questions)))


def recorded_flags(quality: Artifact) -> FlagCounts:
    """Return the flags that a step `quality` counted."""
    return QualityFindings.model_validate(quality.record["counts"]["quality"])


def rows_of_controls(rows: Rows, controls: Collection[str]) -> Rows:
    """Return the rows of some controls, by their ids."""
    kept = [row for row in rows.conversations if row.control_id in controls]
    ids = {row.example_id for row in kept}
    return Rows(kept, [q for q in rows.questions if q.example_id in ids])


def control_ids(rows: Rows) -> dict[str, str]:
    """Return the text of each control by its id."""
    return {row.control_id: row.control for row in rows.conversations}
