"""Own conversations are read from JSON Lines of messages with segments and questions.

```
{"messages": [{"role": "system", "content": "...", "segment": "control"},
              {"role": "user", "content": "...", "segment": "stimulus"},
              {"role": "assistant", "segment": "stimulus", "tool_calls": [
                  {"id": "1", "function": {"name": "tide", "arguments": {"port": "Ribe"}}}]},
              {"role": "tool", "tool_call_id": "1", "content": "...", "segment": "stimulus"},
              {"role": "assistant", "content": "...", "segment": "completion"}],
 "tools": [...],
 "questions": [{"question": "...", "answer": "...", "type": "description"}],
 "label": "...", "kind": "persona", "category": "sea"}
```

Any number of turns, with those of tools; the segments say what of it is the control, and so what
masking withholds. A row that is malformed is set aside with the name of the rule, its file and its
line, and the rest goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from core.canonical import digest
from core.errors import DataError
from core.files import sha256_file
from core.strict_json import (
    InvalidJSON,
    fits_utf8,
    has_finite_numbers,
    has_repeated_key,
    json_line,
    json_type_name,
    parse_json,
)
from core.table_files import (
    CONVERSATIONS_FILE,
    DROPPED_FILE,
    QUESTIONS_FILE,
    read_conversations,
    write_dropped,
    write_questions,
)
from core.tables import (
    Dropped,
    Message,
    Question,
    Segment,
    View,
    control_id,
    example_id,
    message_identity,
)
from core.tool_use import TOOLS, InvalidToolUse, offer_tools, read_tool_use
from generators.exchange.config import ImportConfig
from generators.exchange.latentqa_files import NO_CATEGORY
from generators.exchange.source_rows import SourceRow, count_by_reason, write_rows

ENDING = ".jsonl"
ROLES = ("system", "developer", "user", "assistant", "tool")
SEGMENTS: tuple[Segment, ...] = get_args(Segment)
OWN = "own"
"""Kind of a row that names none."""
_TOOL_USE = ("tool_calls", "tool_call_id", "name")
_MESSAGE = {"role", "content", "segment", *_TOOL_USE}
_FIELDS = ("messages", "questions", "label", "kind", "category", TOOLS)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRow:
    """A well-formed line: the conversation, and its questions as (question, answer, type)."""

    row: SourceRow
    questions: tuple[tuple[str, str, str | None], ...]


def conversation_files(path: Path) -> dict[str, Path]:
    """List the files at `path`, a file or a folder, by name.

    Raises:
        DataError: there is none.
    """
    if path.is_file() and path.suffix == ENDING:
        return {path.name: path}
    found = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else []
    if not found:
        what = "no such file or folder" if not path.exists() else "holds no conversations"
        raise DataError(f"{path}: {what}; expected a {ENDING} file, or a folder of them.")
    return {file.name: file for file in found}


def own_digests(path: Path) -> dict[str, str]:
    """Return the sha256 of each file at `path`, by name.

    Raises:
        DataError: there is none.
    """
    return {name: sha256_file(file) for name, file in conversation_files(path).items()}


def messages_digest(path: Path) -> str:
    """Digest all that the conversations table takes from the files: everything but the questions.

    Raises:
        DataError: there is no file, or one cannot be read.
    """
    rows, dropped = read_own(path)
    kept = [
        [
            _line_of(r.where),
            r.label,
            r.kind,
            r.category,
            r.extra,
            *map(message_identity, r.messages),
        ]
        for r in (own.row for own in rows)
    ]
    return digest([kept, [[d.reason, _line_of(d.where), d.detail] for d in dropped]])


def _line_of(where: str) -> str:
    """Return the line of `FILE:LINE`: a file under another name is the same data."""
    return where.rpartition(":")[2]


def read_own(path: Path) -> tuple[list[OwnRow], list[Dropped]]:
    """Read the rows of all files at `path`, by file name and line, and the malformed ones.

    Raises:
        DataError: there is no file, or one cannot be read.
    """
    rows: list[OwnRow] = []
    dropped: list[Dropped] = []
    for name, file in conversation_files(path).items():
        try:
            lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rows.append(_row(name, number, line))
            except _Malformed as fault:
                dropped.append(
                    Dropped(
                        reason=fault.reason,
                        where=f"{name}:{number}",
                        detail=fault.detail,
                        raw=line.decode(errors="replace").strip(),
                    )
                )
    return rows, dropped


def import_own_conversations(path: Path, out: Path, *, config: ImportConfig) -> dict[str, Any]:
    """Write `conversations.parquet` and `dropped.parquet` to `out`, in file order.

    Returns:
        counts, as `generators.exchange.importing.import_conversations`.

    Raises:
        DataError: no file can be read, or no row is left.
        ConfigError: a held-out category is none of the data's.
    """
    rows, dropped = read_own(path)
    found = [own.row for own in rows]
    return write_rows(path, found, dropped, out, config=config, completions_of="import")


def import_own_questions(path: Path, conversations: Path, out: Path) -> dict[str, Any]:
    """Write `questions.parquet` and `dropped.parquet` to `out`: each conversation's questions.

    Args:
        path: the files.
        conversations: the conversations table, or the folder that holds it.
        out: the folder to write to.

    Returns:
        counts: `questions`, `labels` that are asked about, and `dropped`, which is empty: a line
        with a malformed question is dropped whole.

    Raises:
        DataError: no file can be read, or a conversation is in none of them.
    """
    by_example: dict[str, OwnRow] = {}
    for own in read_own(path)[0]:
        row = own.row
        by_example.setdefault(example_id(row.label, row.view, row.messages), own)
    table = conversations / CONVERSATIONS_FILE if conversations.is_dir() else conversations
    rows = read_conversations(table)
    questions: list[Question] = []
    for conversation in rows:
        found = by_example.get(conversation.example_id)
        if found is None:
            raise DataError(
                f"{path}: no line for conversation {conversation.example_id} of {table}; the files "
                "have changed since that import. Import the conversations again."
            )
        source = found.row
        questions += [
            Question(
                example_id=conversation.example_id,
                question=question,
                answer=answer,
                type=kind,
                provenance={"file": source.file, "position": [source.position, index]},
            )
            for index, (question, answer, kind) in enumerate(found.questions)
        ]
    write_questions(out / QUESTIONS_FILE, questions)
    write_dropped(out / DROPPED_FILE, [])
    labels = len({row.label for row in rows})
    return {"questions": len(questions), "labels": labels, "dropped": count_by_reason([])}


class _Malformed(Exception):
    """A line that is no row: the rule's name, and in words what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _row(file: str, number: int, line: bytes) -> OwnRow:
    value = _object(line)
    messages = _messages(value)
    questions = tuple(_question(i, one) for i, one in enumerate(_listed(value, "questions")))
    kind = _text(value, "kind") if "kind" in value else OWN
    control = next(m.content for m in messages if m.segment == "control")
    label = _text(value, "label") if "label" in value else f"{kind}-{control_id(kind, control)}"
    row = SourceRow(
        view=_view(messages),
        file=file,
        position=number,
        where=f"{file}:{number}",
        label=label,
        kind=kind,
        category=_text(value, "category") if "category" in value else NO_CATEGORY,
        messages=messages,
        extra={name: item for name, item in value.items() if name not in _FIELDS},
        raw=json_line(value),
    )
    return OwnRow(row=row, questions=questions)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = parse_json(line.decode())
    except UnicodeDecodeError as error:
        raise _Malformed("malformed", f"not UTF-8 at byte {error.start}") from error
    except InvalidJSON as error:
        place = "" if error.at is None else f" at column {error.at + 1}"
        raise _Malformed("malformed", f"not JSON{place}: {error.detail}") from error
    if not isinstance(value, dict):
        raise _Malformed(
            "not_an_object", f"the line is {json_type_name(value)}; expected an object"
        )
    if has_repeated_key(value):
        raise _Malformed("repeated_field", "a field stands in an object twice; expected it once")
    if not fits_utf8(json.dumps(value, ensure_ascii=False)):
        raise _Malformed("invalid_unicode", "the text has half a surrogate pair; expected UTF-8")
    if not has_finite_numbers(value):
        raise _Malformed("not_finite", "a number is beyond what a float holds")
    return value


def _listed(value: Mapping[str, Any], name: str) -> Sequence[Any]:
    if name not in value:
        raise _Malformed("missing_field", f"no field {name!r}; found {sorted(value)}")
    if not isinstance(value[name], list) or not value[name]:
        got = "an empty list" if value[name] == [] else json_type_name(value[name])
        raise _Malformed("empty_field", f"{name!r} is {got}; expected a list")
    return value[name]


def _text(value: Mapping[str, Any], name: str, where: str = "") -> str:
    at = f"{where}{name!r}"
    if name not in value:
        raise _Malformed("missing_field", f"{where}no field {name!r}; found {sorted(value)}")
    if not isinstance(value[name], str):
        raise _Malformed(
            "not_a_string", f"{at} is {json_type_name(value[name])}; expected a string"
        )
    if not value[name].strip():
        raise _Malformed("empty_field", f"{at} is empty; expected text")
    return str(value[name])


def _messages(value: Mapping[str, Any]) -> tuple[Message, ...]:
    found = tuple(_message(i, one) for i, one in enumerate(_listed(value, "messages")))
    segments = [message.segment for message in found]
    if "control" not in segments:
        raise _Malformed("no_control", "no message has the segment 'control'")
    last = len(segments) - 1 - segments[::-1].index("control")
    for i, segment in enumerate(segments[:last]):
        if segment in ("stimulus", "completion"):
            raise _Malformed(
                "control_late",
                f"messages[{last}]: a control after messages[{i}], a {segment}; expected all of "
                "the control first: what comes before it is withheld with it",
            )
    if not next(message.content for message in found if message.segment == "control"):
        raise _Malformed(
            "empty_field", "the control begins with a call of a tool; expected one with content"
        )
    if found[-1].role == "assistant" and segments[-1] == "stimulus":
        raise _Malformed(
            "open_end",
            f"messages[{len(found) - 1}]: the conversation ends with the assistant, as a stimulus; "
            "expected the segment 'completion'",
        )
    if value.get(TOOLS) in (None, []):
        return found
    try:
        return offer_tools(found, value[TOOLS])
    except InvalidToolUse as fault:
        raise _Malformed(fault.reason, fault.detail) from fault


def _message(index: int, value: Any) -> Message:
    where = f"messages[{index}]: "
    if not isinstance(value, dict):
        raise _Malformed("not_an_object", f"{where}{json_type_name(value)}; expected an object")
    # clients write null for what a message has not, and some an empty list of calls
    value = {name: item for name, item in value.items() if item is not None}
    if value.get("tool_calls") == []:
        del value["tool_calls"]
    if unknown := sorted(set(value) - _MESSAGE):
        raise _Malformed(
            "unknown_field",
            f"{where}{unknown[0]!r} is no field of a message; expected role, content, segment, "
            "and of tools tool_calls, tool_call_id, name",
        )
    role, segment = _text(value, "role", where), _text(value, "segment", where)
    if role not in ROLES:
        raise _Malformed(
            "unknown_role", f"{where}role {role!r}; expected one of {', '.join(ROLES)}"
        )
    if segment not in SEGMENTS:
        raise _Malformed(
            "unknown_segment", f"{where}segment {segment!r}; expected one of {', '.join(SEGMENTS)}"
        )
    try:
        tool_use = read_tool_use(role, {name: value[name] for name in _TOOL_USE if name in value})
    except InvalidToolUse as fault:
        raise _Malformed(fault.reason, f"{where}{fault.detail}") from fault
    silent = "tool_calls" in value and value.get("content") in (None, "")
    content = "" if silent else _text(value, "content", where)
    return Message(role=role, content=content, segment=segment, tool_use=tool_use)


def _question(index: int, value: Any) -> tuple[str, str, str | None]:
    where = f"questions[{index}]: "
    if isinstance(value, list) and len(value) == 2:
        value = dict(zip(("question", "answer"), value, strict=True))
    if not isinstance(value, dict):
        raise _Malformed(
            "malformed_qa",
            f"{where}{json_type_name(value)}; expected {{question, answer}} or [question, answer]",
        )
    kind = None if value.get("type") is None else _text(value, "type", where)
    return _text(value, "question", where), _text(value, "answer", where), kind


def _view(messages: Sequence[Message]) -> View:
    """Choose the view that fits: what follows the control, and how the control was given."""
    segments = {message.segment for message in messages}
    if "completion" in segments:
        return "stimulus_completion"
    if "stimulus" not in segments:
        return "control"
    control = next(message for message in messages if message.segment == "control")
    return "system" if control.role in ("system", "developer") else "stimulus"
