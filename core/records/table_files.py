"""Write and read the tables as Parquet files; their schemas.

`messages` and `flags` are nested Arrow types and `provenance` is JSON text, so that
`datasets.load_dataset("parquet", ...)` and any other reader opens the files as they are.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError, first_line
from core.files import write_bytes
from core.records.tables import Conversation, Dropped, Message, Question

CONVERSATIONS_FILE = "conversations.parquet"
QUESTIONS_FILE = "questions.parquet"
DROPPED_FILE = "dropped.parquet"


def _texts(*names: str) -> list[pa.Field]:
    """Make columns of text without empty cells."""
    return [pa.field(name, pa.string(), nullable=False) for name in names]


_MESSAGES = pa.list_(pa.struct(_texts("role", "content", "segment")))
_FLAGS = pa.field("flags", pa.list_(pa.string()), nullable=False)

CONVERSATION_SCHEMA = pa.schema(
    [
        *_texts("example_id", "control_id", "group_id", "kind", "category", "label"),
        *_texts("view", "split", "source"),
        pa.field("messages", _MESSAGES, nullable=False),
        pa.field("completion_origin", pa.string()),
        _FLAGS,
        *_texts("provenance"),
    ]
)

TOOL_USE_FIELD = pa.field("tool_use", pa.list_(pa.string()))
"""A column more where tools are called: `Message.tool_use` of each message; null without any."""

QUESTION_SCHEMA = pa.schema(
    [
        *_texts("example_id", "question", "answer"),
        pa.field("type", pa.string()),
        _FLAGS,
        *_texts("provenance"),
    ]
)

DROPPED_SCHEMA = pa.schema(_texts("reason", "where", "detail", "raw"))


_BLOCK = 65_536
_BATCH = 1024  # rows that are plain objects at one time
_PROVENANCE = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False)


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    """Write `rows` as Parquet in the order given; the same rows give the same bytes.

    The column `tool_use` is there only where a message has something for it.
    """
    kept = list(rows)
    used = any(message.tool_use is not None for row in kept for message in row.messages)
    _write(path, CONVERSATION_SCHEMA.append(TOOL_USE_FIELD) if used else CONVERSATION_SCHEMA, kept)


def write_questions(path: Path, rows: Iterable[Question]) -> None:
    """Write `rows` as Parquet in the order given; the same rows give the same bytes."""
    _write(path, QUESTION_SCHEMA, list(rows))


def write_dropped(path: Path, rows: Iterable[Dropped]) -> None:
    """Write the table of rows that were not kept."""
    _write(path, DROPPED_SCHEMA, list(rows))


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause garbage collection while many rows are made, which stay and form no cycles.

    The collector walks all objects again each time that their number has grown by a quarter,
    which for half a million rows costs more than to make them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_conversations(path: Path) -> list[Conversation]:
    """Read the rows of a `conversations` file, in file order.

    Raises:
        DataError: the file is not there or is not such a table.
    """
    with garbage_collection_paused():
        return [
            Conversation(**row | {"messages": messages, "flags": tuple(row["flags"])})
            for row in _with_provenance(path, _read(path, CONVERSATION_SCHEMA, TOOL_USE_FIELD))
            for messages in [_with_tool_use(path, row, row.pop(TOOL_USE_FIELD.name, None))]
        ]


def read_questions(path: Path) -> list[Question]:
    """Read the rows of a `questions` file, in file order.

    Raises:
        DataError: the file is not there or is not such a table.
    """
    with garbage_collection_paused():
        return [
            Question(**row | {"flags": tuple(row["flags"])})
            for row in _with_provenance(path, _read(path, QUESTION_SCHEMA))
        ]


def read_dropped(path: Path) -> list[Dropped]:
    """Read the rows of a `dropped` file, in file order.

    Raises:
        DataError: the file is not there or is not such a table.
    """
    return [Dropped(**row) for row in _read(path, DROPPED_SCHEMA)]


def _with_tool_use(
    path: Path, row: Mapping[str, Any], tool_use: Sequence[str | None] | None
) -> tuple[Message, ...]:
    if tool_use is None:
        return tuple(Message(**m) for m in row["messages"])
    try:
        for text in tool_use:
            if text is not None and not isinstance(json.loads(text), dict):
                raise ValueError("no object")
        return tuple(
            Message(**m, tool_use=text) for m, text in zip(row["messages"], tool_use, strict=True)
        )
    except ValueError as error:
        raise DataError(
            f"{path}: tool_use of {row['example_id']} cannot be used ({error}); "
            "expected a JSON object or null for each message."
        ) from error


def tool_use_cell(messages: Sequence[Message]) -> list[str | None] | None:
    """Return the cell of the column `tool_use` for a row with these messages."""
    found = [message.tool_use for message in messages]
    return found if any(text is not None for text in found) else None


def _with_provenance(path: Path, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Decode the provenance of `rows`; equal texts in a run share one object."""
    text, value = None, {}
    for row in rows:
        if row["provenance"] != text:
            text, value = row["provenance"], _provenance(path, row)
        yield row | {"provenance": value}


def _provenance(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(row["provenance"])
    except ValueError as error:
        raise DataError(
            f"{path}: provenance of {row['example_id']} is not JSON ({error}); expected an object."
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: provenance of {row['example_id']} is a {type(value).__name__}; "
            "expected an object."
        )
    return value


def _write(path: Path, schema: pa.Schema, rows: Sequence[Any]) -> None:
    with garbage_collection_paused():
        columns = [_column(rows, wanted) for wanted in schema]
        table = pa.Table.from_arrays(columns, schema=schema)
    # through memory, so that the file is whole or absent and a full disk gets its one line
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def _column(rows: Sequence[Any], wanted: pa.Field) -> pa.Array | pa.ChunkedArray:
    if wanted == TOOL_USE_FIELD:
        return pa.array([tool_use_cell(row.messages) for row in rows], wanted.type)
    values: Iterable[Any] = map(attrgetter(wanted.name), rows)
    if wanted.name == "messages":
        blocks = [_messages(block, wanted.type) for block in _blocks(list(values))]
        return pa.chunked_array(blocks, type=wanted.type)
    if wanted.name == "provenance":
        values = _json_texts(values)
    return pa.array(list(values), wanted.type)


def _messages(rows: Sequence[Sequence[Message]], wanted: pa.ListType) -> pa.Array:
    """Build the column of messages from flat arrays: several times as fast as from objects."""
    flat = list(itertools.chain.from_iterable(rows))
    fields = list(wanted.value_type)
    parts = [pa.array(list(map(attrgetter(one.name), flat)), one.type) for one in fields]
    ends = itertools.accumulate(map(len, rows), initial=0)
    return pa.ListArray.from_arrays(
        pa.array(list(ends), pa.int32()),
        pa.StructArray.from_arrays(parts, fields=fields),
        type=wanted,
    )


def _blocks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Split rows into blocks whose text stays far below Arrow's 2 GB."""
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _json_texts(values: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Encode each value as JSON; a value shared by consecutive rows is encoded once."""
    last, text = None, ""
    for value in values:
        if value is not last:
            last, text = value, _PROVENANCE.encode(value)
        yield text


def _read(
    path: Path, schema: pa.Schema, optional: pa.Field | None = None
) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected a Parquet table.") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({first_line(error)}).") from error
    if optional is not None and optional.name in table.column_names:
        schema = schema.append(optional)
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; found {table.column_names}.")
    for wanted in schema:
        column = table.column(wanted.name)
        if column.null_count and not wanted.nullable:
            raise DataError(f"{path}: column {wanted.name!r} has empty cells; expected a value.")
        if column.type != wanted.type and not _castable(column, wanted.type):
            raise DataError(
                f"{path}: column {wanted.name!r} holds {column.type}; expected {wanted.type}."
            )
    whole = table.select(schema.names).cast(pa.schema([one.with_nullable(True) for one in schema]))
    try:
        for batch in whole.to_batches(max_chunksize=_BATCH):
            yield from batch.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a text in it is not UTF-8 ({error}).") from error


def _castable(column: pa.ChunkedArray, wanted: pa.DataType) -> bool:
    # other writers store the same text as large_string or string_view; a number is no text
    if pa.types.is_string(wanted) and not (
        pa.types.is_large_string(column.type)
        or pa.types.is_string_view(column.type)
        or pa.types.is_null(column.type)
        or pa.types.is_dictionary(column.type)
    ):
        return False
    try:
        column.cast(wanted)
    except (pa.ArrowException, ValueError):
        return False
    return True
