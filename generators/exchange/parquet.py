"""A data set is written as Parquet shards with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from core.errors import ConfigError
from core.files import storage_errors
from core.records.tables import Conversation, Dropped, Question
from generators.exchange.dataset_card import count_sources, dataset_card
from generators.exchange.exporting import to_tables
from generators.quality.findings import QualityFindings

CARD = "README.md"
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
