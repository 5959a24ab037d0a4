"""A data set is written as Parquet shards with a card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import ConfigError
from core.files import storage_errors
from core.records.table_files import CONVERSATION_SCHEMA, QUESTION_SCHEMA, TOOL_USE_FIELD
from core.records.tables import SPLITS, Conversation, Dropped, Question
from generators.exchange.dataset_card import count_sources, dataset_card
from generators.exchange.exporting import to_columns
from generators.quality.findings import QualityFindings

CARD = "README.md"
SHARD_ROWS = 50_000
"""Conversations of one file."""

_SCHEMA = pa.schema(
    [
        *CONVERSATION_SCHEMA,
        pa.field(
            "questions",
            pa.list_(pa.struct([field for field in QUESTION_SCHEMA if field.name != "example_id"])),
            nullable=False,
        ),
    ]
)


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
        questions: those about them.
        dropped: rows that were not kept, for the card.
        name: title of the card.
        licence: of the whole; None where nobody has said.
        source_licences: licence by source (generators.exchange.dataset_card.count_sources).
        quality: what the step `quality` measured, for the card.

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
    records = to_columns(conversations, questions)
    used = any(TOOL_USE_FIELD.name in record for record in records)
    schema = _SCHEMA.append(TOOL_USE_FIELD) if used else _SCHEMA
    with storage_errors(out):
        (out / "data").mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            rows = [record for record in records if record["split"] == split]
            starts = range(0, len(rows), SHARD_ROWS)
            for number, start in enumerate(starts):
                path = out / "data" / f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
                plain = [_plain(record) for record in rows[start : start + SHARD_ROWS]]
                table = pa.Table.from_pylist(plain, schema=schema)
                pq.write_table(table, path, compression="zstd")
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


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Encode every provenance of `record` as JSON text: its fields differ from row to row."""
    questions = [one | {"provenance": _json(one["provenance"])} for one in record["questions"]]
    return record | {"provenance": _json(record["provenance"]), "questions": questions}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
