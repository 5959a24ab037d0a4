"""LatentQA's published JSON files are imported into the two tables.

Nothing is lost: every row is kept, or stands in `dropped.parquet` with the rule's name, its file
and position, and its own JSON; `generators.exchange.exporting.to_latentqa` gives the files back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.files import sha256_file
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import VIEWS, Dropped, Question
from generators.exchange.config import ImportConfig
from generators.exchange.latentqa_files import (
    FILES,
    QA_FILE,
    VIEW_FILES,
    LabelQuestions,
    read_questions_by_label,
    read_view,
)
from generators.exchange.source_rows import (
    QA_LABEL,
    SourceRow,
    write_conversation_rows,
    write_question_rows,
)


def source_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each known file in `folder`, by file name; qa.json first.

    Raises:
        DataError: the folder is missing or empty, or lacks qa.json or any view file.
    """
    expected = f"expected {QA_FILE} and any of {', '.join(VIEW_FILES.values())}"
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; {expected}.")
    if not any(folder.iterdir()):
        raise DataError(f"{folder}: the folder is empty; {expected}.")
    present = [name for name in FILES if (folder / name).is_file()]
    if QA_FILE not in present:
        raise DataError(f"{folder}: no {QA_FILE}; {expected}.")
    if present == [QA_FILE]:
        raise DataError(f"{folder}: no view file; {expected}.")
    return {name: sha256_file(folder / name) for name in present}


def import_conversations(folder: Path, out: Path, *, config: ImportConfig) -> dict[str, Any]:
    """Write `conversations.parquet` and `dropped.parquet` to `out`, in view, then file order.

    Returns:
        Counts: `controls` and `examples`, `dropped` by reason, examples `by_view` and `by_kind`,
        and `by_split` {controls, examples}.

    Raises:
        DataError: a file is missing or is no JSON, or no row is left.
        ConfigError: a held-out category is none of the data's.
    """
    rows, dropped = _read_views(folder)
    kept, without = _asked(rows, read_questions_by_label(folder)[0])
    gone = [*dropped, *without]
    return write_conversation_rows(
        folder, kept, gone, out, config=config, completions_of="published"
    )


def import_questions(folder: Path, conversations: Path, out: Path) -> dict[str, Any]:
    """Write `questions.parquet` and `dropped.parquet` to `out`: each conversation's questions.

    Args:
        folder: the published files.
        conversations: the folder of the conversations table.
        out: the folder to write to.

    Returns:
        Counts: `questions` (rows, a label's questions once for each of its conversations),
        `labels` that are asked about, and `dropped` by reason.

    Raises:
        DataError: a file is missing or malformed, or a conversation's label has no question.
    """
    labels, dropped = read_questions_by_label(folder)
    by_label = {entry.label: entry for entry in labels}
    table = conversations / CONVERSATIONS_FILE
    questions: list[Question] = []
    asked: set[str] = set()
    for row in read_conversations(table):
        label = row.provenance.get(QA_LABEL, row.label)
        if label not in by_label:
            raise DataError(
                f"{folder / QA_FILE}: no question for label {label!r} of {table}; "
                "the file has changed since that import. Import the conversations again."
            )
        asked.add(label)
        questions += _questions(row.example_id, by_label[label])
    for entry in labels:
        if entry.label not in asked:
            where = f"{QA_FILE}[{entry.position}]"
            detail = f"label {entry.label!r} has questions but no conversation"
            dropped.append(
                Dropped(reason="no_conversation", where=where, detail=detail, raw=entry.raw)
            )
    return write_question_rows(questions, dropped, out, labels=len(asked))


def _read_views(folder: Path) -> tuple[list[SourceRow], list[Dropped]]:
    rows: list[SourceRow] = []
    dropped: list[Dropped] = []
    for view in VIEWS:
        if (folder / VIEW_FILES[view]).is_file():
            good, bad = read_view(folder, view)
            rows += good
            dropped += bad
    return rows, dropped


def _asked(
    rows: Sequence[SourceRow], labels: Sequence[LabelQuestions]
) -> tuple[list[SourceRow], list[Dropped]]:
    known = {entry.label for entry in labels}
    dropped = [
        row.drop("no_questions", f"label {row.qa_label!r} has no question in {QA_FILE}")
        for row in rows
        if row.qa_label not in known
    ]
    return [row for row in rows if row.qa_label in known], dropped


def _questions(example: str, entry: LabelQuestions) -> list[Question]:
    return [
        Question(
            example_id=example,
            question=question,
            answer=answer,
            provenance={
                "file": QA_FILE,
                "label": entry.label,
                "position": [entry.position, index],
            },
        )
        for index, question, answer in entry.pairs
    ]
