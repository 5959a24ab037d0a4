"""The rows behind a REF: conversations, their questions, and what was dropped.

A REF may name any artifact: the tables behind it are found through its inputs, so that
`latentqa data show train/3fa9c1` shows what a decoder was trained on. A folder that
`latentqa data import` wrote, and a single Parquet file, work as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import DataError
from core.records.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    read_conversations,
    read_dropped,
    read_questions,
)
from core.records.tables import Conversation, Dropped, Question, with_questions_of_completed
from generators.exchange.parquet import find_shards, read_shards
from generators.quality.findings import QUALITY_FILE, QualityFindings
from pipelines.artifacts.artifact import RECORD, Artifact
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

TABLE_STEPS = ("quality", "complete", "conversations", "questions")
"""Steps that write tables. Of those with the same table the first one counts: checked rows have
their flags, and completed conversations are what the target reads."""
CONVERSATION_STEPS = ("complete", "conversations")
"""Steps that make conversations, the last one first."""
PLAIN_FOLDERS = ("conversations", "questions")
"""Folders of an import outside of any experiment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """A data set in memory."""

    conversations: list[Conversation]
    questions: list[Question]
    dropped: list[Dropped]
    quality: QualityFindings | None = None
    """What the step `quality` measured; None where it did not run."""


def load_tables(root: Path, ref: str) -> Tables:
    """Return the rows that `ref` stands for; no questions where it names conversations alone.

    Args:
        root: the artifact root.
        ref: a REF, a folder of Parquet files, or a conversations file. A name comes before a folder
            of the same name.

    Raises:
        DataError: there are no conversations, or a file is no such table.
        RefError: `ref` names nothing.
        DamagedError: the bytes of an artifact are not those of its record.
    """
    path = Path(ref).expanduser()
    refs = Refs(ArtifactRoot(root))
    is_folder = path.is_dir() and not _in_artifact(path) and refs.get(ref) is None
    is_file = path.is_file() and path.suffix == ".parquet"
    if shards := [path] if is_file else find_shards(path) if is_folder else []:
        found, asked_of = read_shards(shards)
        return Tables(conversations=found, questions=asked_of, dropped=[])
    if is_folder:
        folders = [path, *(path / name for name in PLAIN_FOLDERS)]
    else:
        folders = _artifact_folders(refs, ref)
    table = find_table(folders, CONVERSATIONS_FILE)
    if table is None:
        raise DataError(
            f"{ref}: found no {CONVERSATIONS_FILE}, expected an artifact, an experiment, a "
            "folder of Parquet that `latentqa data` wrote, or a conversations file."
        )
    conversations = read_conversations(table)
    asked = find_table(folders, QUESTIONS_FILE)
    questions = with_questions_of_completed(conversations, read_questions(asked) if asked else [])
    dropped = [
        row
        for folder in folders
        if (folder / DROPPED_FILE).is_file()
        for row in read_dropped(folder / DROPPED_FILE)
    ]
    measured = find_table(folders, QUALITY_FILE)
    return Tables(
        conversations=conversations,
        questions=questions,
        dropped=dropped,
        quality=None if measured is None else QualityFindings.read(measured),
    )


def find_table(folders: Iterable[Path], name: str) -> Path | None:
    """Find a file in the first of some folders that has it; None where none has."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _in_artifact(path: Path) -> bool:
    here = path.resolve()
    return any((folder / RECORD).is_file() for folder in (here, *here.parents))


def _artifact_folders(refs: Refs, ref: str) -> list[Path]:
    """Return the data folders of the artifacts with tables, the wanted conversations first."""
    behind = _closure(refs.root, refs.resolve_set(ref).values())
    found = sorted(
        (artifact for artifact in behind if artifact.kind in TABLE_STEPS),
        key=lambda artifact: TABLE_STEPS.index(artifact.kind),
    )
    return [artifact.checked().data for artifact in found]


def _closure(root: ArtifactRoot, start: Iterable[Artifact]) -> list[Artifact]:
    """Return the artifacts and all that they are made from."""
    pending = list(start)
    by_key: dict[str, Artifact] = {}
    known: dict[str, Artifact] | None = None
    while pending:
        artifact = pending.pop(0)
        if artifact.key in by_key:
            continue
        by_key[artifact.key] = artifact
        inputs = [pair["key"] for pair in artifact.identity["inputs"].values()]
        if inputs and known is None:
            known = {other.key: other for other in root.artifacts()}
        pending += [known[key] for key in inputs if known and key in known]
    return list(by_key.values())
