"""Tables are exported as LatentQA's JSON files, as JSON Lines, and as a `datasets` folder."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.errors import DataError
from core.files import remove_leftovers, storage_errors, write_bytes
from core.records.table_files import (
    CONVERSATION_SCHEMA,
    QUESTION_SCHEMA,
    TOOL_USE_FIELD,
    tool_use_cell,
)
from core.records.tables import SPLITS, VIEWS, Conversation, Dropped, Question, Split
from core.records.tool_use import TOOLS, offered_tools, tool_fields
from generators.exchange.latentqa_files import (
    FIELDS,
    OF_LABEL,
    QA_FILE,
    VIEW_FILES,
    kind_and_category,
)

FORMATS = ("latentqa", "jsonl", "datasets", "parquet")
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

_QA_PLACE = re.compile(rf"{re.escape(QA_FILE)}\[(\d+)\]")


def to_latentqa(
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    orphans: Sequence[Dropped] = (),
) -> dict[str, Any]:
    """Build the published files' values by file name; the inverse of an import.

    Rows and labels that came from published files stand at their old places in order, others
    after them. A view without rows has no file.

    Args:
        conversations: rows in any order.
        questions: their questions; one that several views of a label share is written once.
        orphans: dropped rows; those of reason `no_conversation` are labels of qa.json that no row
            asks for, and are put back. Other rows stay dropped.

    Raises:
        DataError: a conversation's messages are not the ones of its view, or call tools.
    """
    files: dict[str, Any] = {}
    label_of = _qa_labels(conversations, questions)
    for view in VIEWS:
        rows = [row for row in conversations if row.view == view]
        if rows:
            name = VIEW_FILES[view]
            rows.sort(key=lambda row: _place(row.provenance, name))
            files[name] = [_view_object(row, label_of[row.example_id]) for row in rows]
    return files | {QA_FILE: _qa_object(label_of, questions, orphans)}


def write_latentqa(
    out: Path,
    conversations: Sequence[Conversation],
    questions: Sequence[Question],
    orphans: Sequence[Dropped] = (),
) -> None:
    """Write `to_latentqa` to the folder `out`, byte for byte in the published form."""
    for name, value in to_latentqa(conversations, questions, orphans).items():
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
        write_bytes(out / name, text.encode())


def to_records(
    conversations: Sequence[Conversation], questions: Sequence[Question]
) -> list[dict[str, Any]]:
    """Build one plain object a conversation, with its `questions` as a list inside.

    Where tools are called, its messages have their `tool_calls`, `tool_call_id` and `name`, and it
    has the `tools` that are offered.
    """
    by_example: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for question in questions:
        by_example[question.example_id].append(
            {
                "question": question.question,
                "answer": question.answer,
                "type": question.type,
                "flags": list(question.flags),
                "provenance": question.provenance,
            }
        )
    return [
        {name: getattr(row, name) for name in row.__slots__}
        | {
            "messages": [
                {"role": m.role, "content": m.content, "segment": m.segment} | tool_fields(m)
                for m in row.messages
            ],
            "flags": list(row.flags),
            "questions": by_example.get(row.example_id, []),
        }
        | ({} if (tools := offered_tools(row.messages)) is None else {TOOLS: tools})
        for row in conversations
    ]


def to_tables(
    conversations: Sequence[Conversation], questions: Sequence[Question]
) -> dict[Split, pa.Table]:
    """Build a table of `to_records` for each split with rows, for formats with fixed columns.

    Messages are role, content, segment alone. What they have of tools is in the column `tool_use`,
    as in the conversations table: for all rows if a row has any. `provenance` is JSON text, because
    its fields differ from row to row.
    """
    cells = [tool_use_cell(row.messages) for row in conversations]
    rows: dict[Split, list[dict[str, Any]]] = defaultdict(list)
    for record, cell in zip(to_records(conversations, questions), cells, strict=True):
        asked = [_with_provenance_text(one) for one in record["questions"]]
        own = {"questions": asked, TOOL_USE_FIELD.name: cell}
        rows[record["split"]].append(_with_provenance_text(record) | own)
    schema = _SCHEMA.append(TOOL_USE_FIELD) if any(cells) else _SCHEMA
    return {s: pa.Table.from_pylist(rows[s], schema=schema) for s in SPLITS if s in rows}


def _with_provenance_text(record: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(record["provenance"], ensure_ascii=False, sort_keys=True, allow_nan=False)
    return record | {"provenance": text}


def write_jsonl(
    out: Path, conversations: Sequence[Conversation], questions: Sequence[Question]
) -> None:
    """Write `to_records` to the file `out`, one line a conversation."""
    lines = (
        json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        for record in to_records(conversations, questions)
    )
    remove_leftovers(out)
    write_bytes(out, "".join(lines).encode())


def write_datasets(
    out: Path, conversations: Sequence[Conversation], questions: Sequence[Question]
) -> None:
    """Write `to_tables` to the folder `out` as a `datasets.DatasetDict` with a part a split.

    `datasets.load_from_disk(out)` reads it.
    """
    from datasets import Dataset, DatasetDict

    tables = to_tables(conversations, questions)
    with storage_errors(out):
        DatasetDict({split: Dataset(table) for split, table in tables.items()}).save_to_disk(out)


def _view_object(row: Conversation, qa_label: str) -> dict[str, Any]:
    fields = FIELDS[row.view]
    if any(message.tool_use is not None for message in row.messages):
        raise DataError(
            f"conversation {row.example_id} ({row.label}): calls of tools have no LatentQA form. "
            "Export as jsonl instead."
        )
    got = [(m.role, m.segment) for m in row.messages]
    if got != [(f.role, f.segment) for f in fields]:
        raise DataError(
            f"conversation {row.example_id}: view {row.view!r} with messages "
            f"{', '.join(f'{role} ({segment})' for role, segment in got)} has no LatentQA form; "
            f"expected {', '.join(f'{f.role} ({f.segment})' for f in fields)}. "
            "Export as jsonl instead."
        )
    texts = {f.name: m.content for f, m in zip(fields, row.messages, strict=True)}
    told = zip(("kind", "category"), kind_and_category(row.label), strict=True)
    # what the label does not say
    own = {name: getattr(row, name) for name, said in told if said != getattr(row, name)}
    if qa_label != row.label:
        own[OF_LABEL] = row.label
    extra: dict[str, Any] = row.provenance.get("extra", {})
    return texts | {"label": qa_label} | own | extra


def _qa_labels(
    conversations: Sequence[Conversation], questions: Sequence[Question]
) -> dict[str, str]:
    """Return the label under which each row's questions stand, by example id.

    The layout has questions of a label. Rows of one label that are asked other things (windows of
    one text) get labels of their own.
    """
    asked: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for question in questions:
        asked[question.example_id].add((question.question, question.answer))
    alike: dict[str, set[frozenset[tuple[str, str]]]] = defaultdict(set)
    for row in conversations:
        alike[row.label].add(frozenset(asked[row.example_id]))
    return {
        row.example_id: row.label if len(alike[row.label]) == 1 else f"{row.label}-{row.example_id}"
        for row in conversations
    }


def _qa_object(
    label_of: Mapping[str, str],
    questions: Sequence[Question],
    orphans: Sequence[Dropped],
) -> dict[str, list[list[str]]]:
    # by label: (place of the label, {(place in its list, question, answer): pair})
    places: dict[str, tuple[float, ...]] = {}
    pairs: dict[str, dict[tuple[Any, ...], list[str]]] = defaultdict(dict)
    for question in questions:
        if question.example_id in label_of:
            label = label_of[question.example_id]
            place = _place(question.provenance, QA_FILE)
            places[label] = min(places.get(label, place[:1]), place[:1])
            key = (place[1:], question.question, question.answer)
            pairs[label].setdefault(key, [question.question, question.answer])
    ordered: dict[str, list[list[str]]] = {
        # sorted by place alone: pairs without one keep the order in which they came
        label: [pair for _, pair in sorted(by_place.items(), key=lambda item: item[0][0])]
        for label, by_place in pairs.items()
    }
    for orphan in orphans:
        match = _QA_PLACE.fullmatch(orphan.where)
        if orphan.reason == "no_conversation" and match:
            for label, value in json.loads(orphan.raw).items():
                places[label], ordered[label] = (float(match.group(1)),), value
    return {label: ordered[label] for label in sorted(ordered, key=lambda name: places[name])}


def _place(provenance: dict[str, Any], name: str) -> tuple[float, ...]:
    # infinity sorts rows that came from elsewhere behind, in the order in which they stand
    if provenance.get("file") != name:
        return (float("inf"), float("inf"))
    position = provenance["position"]
    return tuple(map(float, position)) if isinstance(position, list) else (float(position),)
