"""The two tables that every other step reads: conversations and questions (Parquet).

`messages`, `provenance` and `flags` are kept as nested Arrow types or JSON text, so that
`datasets.load_dataset("parquet", ...)` and any other reader opens the files as they are.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from core.canonical import digest
from core.errors import DataError
from core.files import write_bytes

View = Literal["control", "stimulus", "stimulus_completion", "system"]
Segment = Literal["template", "control", "stimulus", "completion"]
Split = Literal["train", "validation", "test", "test_ood"]

QuestionType = Literal[
    "description",
    "prediction",
    "extraction",
    "single_fact",
    "two_hop",
    "comparison",
    "counting",
    "negation",
    "before",
    "after",
]
"""What a question asks for; a profile's grades are types, so that whatever groups by type also
reads results by grade."""

VIEWS: tuple[View, ...] = ("control", "stimulus", "stimulus_completion", "system")
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "test_ood")
KINDS = ("persona", "goal", "extractive", "profile", "context")
SOURCES = ("import", "generator")

CONVERSATIONS_FILE = "conversations.parquet"
QUESTIONS_FILE = "questions.parquet"
DROPPED_FILE = "dropped.parquet"

CONVERSATIONS = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("control_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field(
            "messages",
            pa.list_(
                pa.struct(
                    [
                        pa.field("role", pa.string(), nullable=False),
                        pa.field("content", pa.string(), nullable=False),
                        pa.field("segment", pa.string(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("completion_origin", pa.string()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
    ]
)

TOOL_USE = pa.field("tool_use", pa.list_(pa.string()))
"""A column more where tools are called: `Message.tool_use` of each message; null without any."""

QUESTIONS = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("type", pa.string()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
    ]
)

DROPPED = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("where", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)


_BLOCK = 65_536
_BATCH = 1024  # rows that are plain objects at one time
_PROVENANCE = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a target conversation.

    `tool_use` is JSON of the calls of tools that it makes or answers (core/tool_use.py).
    """

    role: str
    content: str
    segment: Segment
    tool_use: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One prompt that the target runs on; a row of `conversations`.

    `example_id` is the digest of label, view and messages; `control_id` the digest of kind and
    control text; `group_id` is shared by rows that share a label or a control text.
    """

    example_id: str
    control_id: str
    group_id: str
    kind: str
    category: str
    label: str
    view: View
    split: Split
    source: str
    messages: tuple[Message, ...]
    completion_origin: str | None = None
    flags: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> str:
        """The control's own text: the first message of segment `control`."""
        return next(m.content for m in self.messages if m.segment == "control")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question about an example, with its gold answer; a row of `questions`."""

    example_id: str
    question: str
    answer: str
    type: str | None = None
    flags: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A row that was not kept: the rule's name, where the row stood, why in words, the row."""

    reason: str
    where: str
    detail: str
    raw: str


def example_id(label: str, view: View, messages: Iterable[Message]) -> str:
    """Content hash of a conversation, 16 hex digits."""
    return digest([label, view, [identity_of(m) for m in messages]])[:16]


def identity_of(message: Message) -> list[str]:
    """What of `message` enters digests; a plain one enters as it did before there were others."""
    plain = [message.role, message.content, message.segment]
    return plain if message.tool_use is None else [*plain, message.tool_use]


def control_id(kind: str, control: str) -> str:
    """Content hash of a control, 16 hex digits."""
    return digest([kind, control])[:16]


def write_conversations(path: Path, rows: Iterable[Conversation]) -> None:
    """Write `rows` as Parquet in the order given; the same rows give the same bytes.

    The column `tool_use` is there only where a message has something for it.
    """
    kept = list(rows)
    used = any(message.tool_use is not None for row in kept for message in row.messages)
    _write(path, CONVERSATIONS.append(TOOL_USE) if used else CONVERSATIONS, kept)


def write_questions(path: Path, rows: Iterable[Question]) -> None:
    """Write `rows` as Parquet in the order given; the same rows give the same bytes."""
    _write(path, QUESTIONS, list(rows))


def write_dropped(path: Path, rows: Iterable[Dropped]) -> None:
    """Write the rows that were not kept."""
    _write(path, DROPPED, list(rows))


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No search for cyclic garbage inside: for making many rows, which stay and form no cycles.

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
    """Rows of a `conversations` file, in file order.

    Raises:
        DataError: the file is not there or is not such a table.
    """
    with collector_paused():
        return [
            Conversation(
                **row | {"messages": messages, "flags": tuple(row["flags"])},
            )
            for row in _with_provenance(path, _read(path, CONVERSATIONS, TOOL_USE))
            for messages in [_with_tool_use(path, row, row.pop(TOOL_USE.name, None))]
        ]


def read_questions(path: Path) -> list[Question]:
    """Rows of a `questions` file, in file order.

    Raises:
        DataError: the file is not there or is not such a table.
    """
    with collector_paused():
        return [
            Question(**row | {"flags": tuple(row["flags"])})
            for row in _with_provenance(path, _read(path, QUESTIONS))
        ]


def read_dropped(path: Path) -> list[Dropped]:
    """Rows of a `dropped` file, in file order.

    Raises:
        DataError: the file is not there or is not such a table.
    """
    return [Dropped(**row) for row in _read(path, DROPPED)]


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


def tool_use_of(messages: Sequence[Message]) -> list[str | None] | None:
    """A cell of the column `tool_use`."""
    found = [message.tool_use for message in messages]
    return found if any(text is not None for text in found) else None


def _with_provenance(path: Path, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`rows` with their provenance read; rows one after the other with one text share one object,
    as drawn questions do."""
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
    with collector_paused():
        columns = [_column(rows, wanted) for wanted in schema]
        table = pa.Table.from_arrays(columns, schema=schema)
    # through memory, so that the file is whole or absent and a full disk gets its one line
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def _column(rows: Sequence[Any], wanted: pa.Field) -> pa.Array | pa.ChunkedArray:
    if wanted == TOOL_USE:
        return pa.array([tool_use_of(row.messages) for row in rows], wanted.type)
    values: Iterable[Any] = map(attrgetter(wanted.name), rows)
    if wanted.name == "messages":
        blocks = [_messages(block, wanted.type) for block in _blocks(list(values))]
        return pa.chunked_array(blocks, type=wanted.type)
    if wanted.name == "provenance":
        values = _json_texts(values)
    return pa.array(list(values), wanted.type)


def _messages(rows: Sequence[Sequence[Message]], wanted: pa.ListType) -> pa.Array:
    """The rows' messages, flat: several times as fast as from one object a message."""
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
    """Rows by so many that the text of a block stays far below Arrow's 2 GB."""
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _json_texts(values: Iterable[dict[str, Any]]) -> Iterator[str]:
    """JSON of each; what many rows share is worded once."""
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
        raise DataError(f"{path}: not a readable Parquet file ({_line(error)}).") from error
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
    whole = table.select(schema.names).cast(_nullable(schema))
    for batch in whole.to_batches(max_chunksize=_BATCH):
        yield from batch.to_pylist()


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


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field_.with_nullable(True) for field_ in schema])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
