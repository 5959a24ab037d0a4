"""Own conversations become rows: messages with segments, and questions.

```
{"messages": [{"role": "system", "content": "...", "segment": "control"},
              {"role": "user", "content": "...", "segment": "stimulus"},
              {"role": "assistant", "segment": "stimulus", "tool_calls": [
                  {"id": "1", "function": {"name": "tide", "arguments": {"port": "Ribe"}}}]},
              {"role": "tool", "tool_call_id": "1", "content": "...", "segment": "stimulus"},
              {"role": "assistant", "content": "...", "segment": "completion"}],
 "tools": [...],
 "questions": [{"question": "...", "answer": "...", "type": "description"}],
 "label": "...", "kind": "persona", "category": "sea", "split": "train", "control_id": "ferryman"}
```

Any number of turns, with those of tools; the segments say what of it is the control, and so what
masking withholds. A row that is malformed is set aside with the name of the rule, its file and its
line, and the rest goes on.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.documents.canonical import digest
from core.documents.strict_json import (
    InvalidJSON,
    fits_utf8,
    has_finite_numbers,
    has_repeated_key,
    json_line,
    json_type_name,
    parse_json,
)
from core.errors import DataError
from core.records.table_files import CONVERSATIONS_FILE, read_conversations
from core.records.tables import (
    SPLITS,
    Dropped,
    Message,
    Question,
    Split,
    View,
    control_id,
    example_id,
    message_identity,
)
from core.records.tool_use import TOOLS
from generators.exchange.config import ImportConfig, RowsConfig
from generators.exchange.latentqa_files import NO_CATEGORY
from generators.exchange.own_messages import read_conversation
from generators.exchange.row_entries import Entry, read_entries
from generators.exchange.row_layout import lay_out, parse_lists
from generators.exchange.row_questions import OwnQuestion, find_new, read_questions
from generators.exchange.source_rows import (
    MalformedRow,
    SourceRow,
    read_text,
    write_conversation_rows,
    write_question_rows,
)
from generators.splits import split_named

_LOG = logging.getLogger(__name__)
OWN = "own"
"""Kind of a row that names none."""
_FIELDS = (
    "messages", "questions", "label", "kind", "category", "split", "control_id", "control", TOOLS,
)  # fmt: skip
_HEADS = {"system", "developer"}
_SHARING_ROWS = 4
"""Fewest rows that share a system prompt as a collection does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRow:
    """One well-formed row of a user's own file.

    Attributes:
        row: the conversation.
        questions: its questions, with those of later lines about the same conversation.
        dropped: questions that were left out.
        may_be_shared: whether its control is a system prompt and nothing in the line names it.
        names_label: whether the line has a label.
        shares_prompt: whether its system prompt is that of most rows, and so not its control.
    """

    row: SourceRow
    questions: tuple[OwnQuestion, ...]
    dropped: tuple[Dropped, ...]
    may_be_shared: bool
    names_label: bool
    shares_prompt: bool = False


def messages_digest(path: Path, rows: RowsConfig | None = None) -> str:
    """Digest all that the conversations table takes from the files: everything but the questions.

    Raises:
        DataError: there is no file, or one cannot be read.
    """
    found, dropped = read_own_rows(path, rows)
    kept = [
        [
            _line_of(r.where),
            r.label,
            r.kind,
            r.category,
            r.extra,
            [r.named_control, r.split],
            *map(message_identity, r.messages),
        ]
        for r in (own.row for own in found)
    ]
    return digest([kept, [[d.reason, _line_of(d.where), d.detail] for d in dropped]])


def _line_of(where: str) -> str:
    """Return the line of `FILE:LINE`: a file under another name is the same data."""
    return where.rpartition(":")[2]


def read_own_rows(path: Path, rows: RowsConfig | None = None) -> tuple[list[OwnRow], list[Dropped]]:
    """Read the rows of all files at `path`, by file name and line, and the malformed ones.

    Raises:
        DataError: there is no file, or one cannot be read.
    """
    config = rows or RowsConfig()
    found: list[OwnRow] = []
    dropped: list[Dropped] = []
    for line in read_entries(path, config):
        try:
            found.append(_row(line, config))
        except MalformedRow as fault:
            raw = line.text.decode(errors="replace").strip()
            dropped.append(fault.drop(f"{line.file}:{line.number}", raw))
    found = _join_questions(found)
    return _own_controls(found) if config.control is None else found, dropped


def _join_questions(rows: list[OwnRow]) -> list[OwnRow]:
    """Join rows of one conversation with different questions, as flat tables have them."""
    joined: dict[tuple[str, Split | None], OwnRow] = {}
    repeated: list[OwnRow] = []
    for own in rows:
        row = own.row
        key = example_id(row.label, row.view, row.messages), row.split
        first = joined.get(key)
        known = () if first is None else first.questions
        new = tuple(find_new(known, own.questions))
        if first is not None and not new:
            repeated.append(own)
            continue
        again = (one.drop_repeated() for one in own.questions if one not in new)
        dropped = (*(() if first is None else first.dropped), *own.dropped, *again)
        joined[key] = replace(first or own, questions=(*known, *new), dropped=dropped)
    return [*joined.values(), *repeated]


def _own_controls(rows: list[OwnRow]) -> list[OwnRow]:
    """Name the control of rows that share one system prompt by label, or by conversation."""
    texts = Counter(own.row.control for own in rows if own.may_be_shared)
    if not texts:
        return rows
    ((text, count),) = texts.most_common(1)
    if count < _SHARING_ROWS or 2 * count <= len(rows):
        return rows
    return [
        _with_own_control(own) if own.may_be_shared and own.row.control == text else own
        for own in rows
    ]


def _with_own_control(own: OwnRow) -> OwnRow:
    control = own.row.label if own.names_label else _conversation_digest(own.row.messages)
    label = own.row.label if own.names_label else _label(own.row.kind, control)
    row = replace(own.row, named_control=control, label=label)
    return replace(own, row=row, shares_prompt=True)


def import_own_conversations(path: Path, out: Path, *, config: ImportConfig) -> dict[str, Any]:
    """Write `conversations.parquet` and `dropped.parquet` to `out`, in file order.

    Returns:
        counts, as `generators.exchange.importing.import_conversations`.

    Raises:
        DataError: no file can be read, or no row is left.
        ConfigError: a held-out category is none of the data's.
    """
    rows, dropped = read_own_rows(path, config.rows)
    if shared := sum(own.shares_prompt for own in rows):
        _LOG.warning(
            "%s: %d of %d rows share one system prompt: each label, or conversation without one, "
            "counts as a control. `rows.control: segment` makes them one; `control_id` in the rows "
            "says what they are of.",
            path.name, shared, len(rows),
        )  # fmt: skip
    found = [own.row for own in rows]
    return write_conversation_rows(
        path, found, dropped, out, config=config, completions_of="import"
    )


def import_own_questions(
    path: Path, conversations: Path, out: Path, *, rows: RowsConfig | None = None
) -> dict[str, Any]:
    """Write `questions.parquet` and `dropped.parquet` to `out`: each conversation's questions.

    Args:
        path: the files.
        conversations: the folder of the conversations table.
        out: the folder to write to.
        rows: the layout of the rows.

    Returns:
        counts: `questions`, `labels` that are asked about, and `dropped` by reason.

    Raises:
        DataError: no file can be read, or a conversation is in none of them.
    """
    by_example: dict[str, OwnRow] = {}
    for own in read_own_rows(path, rows)[0]:
        row = own.row
        by_example.setdefault(example_id(row.label, row.view, row.messages), own)
    table = conversations / CONVERSATIONS_FILE
    known = read_conversations(table)
    questions: list[Question] = []
    dropped: list[Dropped] = []
    for conversation in known:
        found = by_example.get(conversation.example_id)
        if found is None:
            raise DataError(
                f"{path}: no line for conversation {conversation.example_id} of {table}; the files "
                "have changed since that import. Import the conversations again."
            )
        questions += [
            Question(
                example_id=conversation.example_id,
                question=one.question,
                answer=one.answer,
                type=one.type,
                provenance={"file": one.file, "position": list(one.position)},
            )
            for one in found.questions
        ]
        dropped += found.dropped
    labels = len({row.label for row in known})
    return write_question_rows(questions, dropped, out, labels=labels)


def _row(line: Entry, config: RowsConfig) -> OwnRow:
    value = lay_out(_object(line, config), config)
    messages = read_conversation(value)
    questions, dropped = read_questions(value, config, line.file, line.number)
    kind = read_text(value, "kind") if "kind" in value else OWN
    named = _named_control(value)
    if named == control_id(kind, _control_text(messages)):  # as an export names it
        named = None
    if named is None and config.control == "conversation":
        named = _conversation_digest(messages)
    control = named or _control_text(messages)
    label = read_text(value, "label") if "label" in value else _label(kind, control)
    heads = {message.role for message in messages if message.segment == "control"}
    row = SourceRow(
        view=_view(messages),
        file=line.file,
        position=line.number,
        where=f"{line.file}:{line.number}",
        label=label,
        kind=kind,
        category=read_text(value, "category") if "category" in value else NO_CATEGORY,
        messages=messages,
        named_control=control,
        split=_split(value, line),
        extra={name: item for name, item in value.items() if name not in _FIELDS},
        raw=json_line(value),
    )
    return OwnRow(
        row=row,
        questions=questions,
        dropped=dropped,
        may_be_shared=named is None and heads <= _HEADS,
        names_label="label" in value,
    )


def _label(kind: str, control: str) -> str:
    return f"{kind}-{control_id(kind, control)}"


def _conversation_digest(messages: Sequence[Message]) -> str:
    return digest([message_identity(message) for message in messages])


def _object(line: Entry, config: RowsConfig) -> dict[str, Any]:
    if line.fault:
        raise MalformedRow("malformed", line.fault)
    try:
        value = parse_json(line.text.decode(), nan_is_null=True)
    except UnicodeDecodeError as error:
        raise MalformedRow("malformed", f"not UTF-8 at byte {error.start}") from error
    except InvalidJSON as error:
        place = "" if error.at is None else f" at column {error.at + 1}"
        raise MalformedRow("malformed", f"not JSON{place}: {error.detail}") from error
    if not isinstance(value, dict):
        got = json_type_name(value)
        raise MalformedRow("not_an_object", f"the line is {got}; expected an object")
    if has_repeated_key(value) or has_repeated_key(value := parse_lists(value, config)):
        raise MalformedRow("repeated_field", "a field occurs twice in an object; expected it once")
    if not has_finite_numbers(value):
        raise MalformedRow("not_finite", "a number is beyond what a float holds")
    if not fits_utf8(json.dumps(value, ensure_ascii=False)):
        raise MalformedRow("invalid_unicode", "the text has half a surrogate pair; expected UTF-8")
    return value


def _named_control(value: Mapping[str, Any]) -> str | None:
    """Return what the row itself calls its control; None where it does not say."""
    for name in ("control_id", "control"):
        if isinstance(value.get(name), int):
            return str(value[name])
        if name in value:
            return read_text(value, name)
    return None


def _control_text(messages: Sequence[Message]) -> str:
    """Join what the row's segment `control` says; an assistant's acknowledgement is no part."""
    own = [m.content for m in messages if m.segment == "control" and m.role != "assistant"]
    return "\n\n".join(own) or next(m.content for m in messages if m.segment == "control")


def _split(value: Mapping[str, Any], line: Entry) -> Split | None:
    """Return the split that the row keeps; None where splits are drawn."""
    if "split" not in value:
        return line.split
    given = read_text(value, "split")
    if (split := split_named(given)) is None:
        raise MalformedRow("unknown_split", f"split {given!r}; expected one of {', '.join(SPLITS)}")
    return split


def _view(messages: Sequence[Message]) -> View:
    """Choose the view that fits: what follows the control, and how the control was given."""
    segments = {message.segment for message in messages}
    if "completion" in segments:
        return "stimulus_completion"
    if "stimulus" not in segments:
        return "control"
    control = next(message for message in messages if message.segment == "control")
    return "system" if control.role in ("system", "developer") else "stimulus"
