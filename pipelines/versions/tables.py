"""The rows of a version: the last tables of its run, read from its artifacts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from core.table_files import (
    CONVERSATIONS_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_questions,
)
from core.tables import with_questions_of_completed
from pipelines.artifacts.artifact import Artifact
from pipelines.versions.drift import Rows

_CONVERSATIONS = ("quality", "complete", "conversations")
_QUESTIONS = ("quality", "questions")
"""Steps that write each table, the last one first."""


def read_version(artifacts: Mapping[str, Artifact]) -> Rows | None:
    """Read the rows of a version; None where its run made no tables.

    Args:
        artifacts: of its run, by step.

    Raises:
        DataError: a table cannot be read.
    """
    conversations = _table(artifacts, _CONVERSATIONS, CONVERSATIONS_FILE)
    questions = _table(artifacts, _QUESTIONS, QUESTIONS_FILE)
    if conversations is None or questions is None:
        return None
    rows = read_conversations(conversations.data / CONVERSATIONS_FILE)
    asked = read_questions(questions.data / QUESTIONS_FILE)
    return Rows(rows, with_questions_of_completed(rows, asked))


def rows_of_controls(rows: Rows, controls: Collection[str]) -> Rows:
    """Return the rows of some controls, by their ids."""
    kept = [row for row in rows.conversations if row.control_id in controls]
    ids = {row.example_id for row in kept}
    return Rows(kept, [q for q in rows.questions if q.example_id in ids])


def control_ids(rows: Rows) -> dict[str, str]:
    """Return the text of each control by its id."""
    return {row.control_id: row.control for row in rows.conversations}


def _table(artifacts: Mapping[str, Artifact], steps: tuple[str, ...], file: str) -> Artifact | None:
    found = (artifacts[step] for step in steps if step in artifacts)
    table = next((one for one in found if (one.data / file).is_file()), None)
    return None if table is None else table.checked()
