"""Write a data set as Parquet shards with a card, and read such shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from core.errors import ConfigError, DataError
from core.files import storage_errors
from core.records.table_files import read_conversations
from core.records.tables import SPLITS, Conversation, Dropped, Question
from generators.exchange.dataset_card import count_sources, dataset_card
from generators.exchange.exporting import to_tables
from generators.quality.findings import QualityFindings

CARD = "README.md"
QUESTIONS = "questions"
"""Column with a conversation's questions, as a list."""
SHARD_ROWS = 50_000
"""Conversations of one file."""


def write_parquet(
    out: Path,
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    dropped: Sequence[Dropped] = (),
    *,
    name: str,
    licence: str | None = None,
    source_licences: Mapping[str, str] | None = None,
    quality: QualityFindings | None = None,
) -> None:
    """Write `data/SPLIT-00000-of-00001.parquet`, … and the card into the folder `out`.

    A row is a conversation with its questions as a list; `datasets.load_dataset(out)` reads it.
    The same rows give the same bytes.

    Args:
        out: an empty folder.
        conversations: rows, in any order of splits.

    The others are those of `dataset_card`.

    Raises:
        ConfigError: a licence is given for a source that no row has.
        StorageError: the disk is full or read-only.
    """
    text = dataset_card(
        conversations,
        questions,
        dropped,
        name=name,
        licence=licence,
        source_licences=_known(source_licences or {}, conversations, questions),
        quality=quality,
    )
    with storage_errors(out):
        (out / "data").mkdir(parents=True, exist_ok=True)
        for split, table in to_tables(conversations, questions).items():
            starts = range(0, table.num_rows, SHARD_ROWS)
            for number, start in enumerate(starts):
                path = out / "data" / f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
                pq.write_table(table.slice(start, SHARD_ROWS), path, compression="zstd")
        (out / CARD).write_text(text, encoding="utf-8")


def find_shards(folder: Path) -> list[Path]:
    """Return the shards of a folder that `write_parquet` wrote, split by split; none of another."""
    found = (folder / "data").glob("*-of-*.parquet")
    order: dict[str, int] = {split: place for place, split in enumerate(SPLITS)}
    return sorted(found, key=lambda path: (order.get(path.name.split("-")[0], -1), path.name))


def read_shards(shards: Sequence[Path]) -> tuple[list[Conversation], list[Question]]:
    """Read conversations from Parquet files, and their questions where a column has them.

    Raises:
        DataError: a file is no such table.
    """
    conversations: list[Conversation] = []
    questions: list[Question] = []
    for path in shards:
        conversations += read_conversations(path)
        questions += _questions_in(path)
    return conversations, questions


def _questions_in(path: Path) -> list[Question]:
    """Read the column of questions, which other writers leave out."""
    with pq.ParquetFile(path) as file:
        if QUESTIONS not in file.schema_arrow.names:
            return []
        rows = file.read(["example_id", QUESTIONS]).to_pylist()
    try:
        return [
            Question(
                example_id=row["example_id"],
                **{
                    **one,
                    "flags": tuple(one["flags"]),
                    "provenance": json.loads(one["provenance"]),
                },
            )
            for row in rows
            for one in row[QUESTIONS]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: column {QUESTIONS!r} cannot be used ({error!r}), expected lists of questions "
            "as `latentqa data export --format parquet` writes them."
        ) from error


def _known(
    licences: Mapping[str, str],
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
) -> Mapping[str, str]:
    there = count_sources(conversations, questions)
    for source in licences:
        if source not in there:
            raise ConfigError(
                f"--source-license {source}: no row comes from it; found {', '.join(there)}."
            )
    return licences
