"""Own conversations in ShareGPT's, Alpaca's or renamed columns are brought into one layout.

A row becomes `{"messages": [...], "questions": [...], "label": ..., "split": ..., ...}`, each
message with its segment.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from core.documents.strict_json import InvalidJSON, json_line, json_type_name, parse_json
from generators.exchange.config import ROW_COLUMNS, RowsConfig
from generators.exchange.own_messages import read_messages
from generators.exchange.source_rows import MalformedRow

_SHAREGPT = {"messages": "conversations", "role": "from", "content": "value"}
_OF_MESSAGE = ("role", "content", "segment")
_HEADS = ("system", "developer")
_NAMES = ("label", "kind", "category")


def parse_lists(value: dict[str, Any], config: RowsConfig) -> dict[str, Any]:
    """Parse the lists that stand in a row as JSON text, as tables that cannot nest hold them."""
    lists = ("messages", "questions", "tools")
    names = {"conversations", *lists, *(config.columns.get(name, name) for name in lists)}
    return {
        name: _parsed(item) if name in names and isinstance(item, str) else item
        for name, item in value.items()
    }


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except InvalidJSON:
        pass
    try:  # pandas writes lists into tables as Python does
        found = ast.literal_eval(text.strip())
        return parse_json(json_line(found)) if isinstance(found, list) else text
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def lay_out(value: Mapping[str, Any], config: RowsConfig) -> dict[str, Any]:
    """Return the row `value` in the one layout that is read.

    Raises:
        MalformedRow: the row has no messages, or a message has no segment and no rule gives it one.
    """
    names = {name: name for name in ROW_COLUMNS}
    if config.shape == "sharegpt":
        names |= _SHAREGPT
    names |= config.columns
    paths = {path: _within(value, path) for path in config.columns.values() if "." in path}
    # a column that the config names is not the field of its own name
    in_order = sorted(names.items(), key=lambda item: item[0] in config.columns)
    taken = {theirs: ours for ours, theirs in in_order if ours not in _OF_MESSAGE}
    row = {
        taken.get(name, name): item
        for name, item in (paths | dict(value)).items()
        # a field that stands in another column is not read from the one of its own name
        if item not in (None, "") and (name in taken or name not in config.columns)
    }
    for name in _NAMES:
        if type(row.get(name)) is int:  # a class number, as tables of labels have it
            row[name] = str(row[name])
    if config.shape == "alpaca":
        row["messages"] = _alpaca(row)
    elif config.shape == "prompt":
        row["messages"] = _prompted(row, names["prompt"])
    elif "messages" not in row:
        raise MalformedRow(
            "missing_field",
            f"no field {names['messages']!r}; found {sorted(value)}{_other_layout(value)}",
        )
    if not isinstance(row["messages"], list) or not row["messages"]:
        got = "an empty list" if row["messages"] == [] else json_type_name(row["messages"])
        raise MalformedRow("empty_field", f"{names['messages']!r} is {got}; expected a list")
    theirs = {names[name]: name for name in _OF_MESSAGE}
    messages = [
        {theirs.get(name, name): item for name, item in one.items()}
        if isinstance(one, dict)
        else one
        for one in row["messages"]
    ]
    if system := row.pop("system", None):
        messages = [*_system_message(system, messages), *messages]
    row["messages"] = _with_segments(read_messages(messages, config.roles), config)
    if "questions" not in row and "question" in row and "answer" in row:
        row["questions"] = [{"question": row.pop("question"), "answer": row.pop("answer")}]
    return row


def _system_message(system: Any, messages: list[Any]) -> list[dict[str, Any]]:
    """Return the message of a system prompt beside the messages, as Anthropic and Gemini have it.

    None where the messages begin with it themselves. Where they have segments it is the control.
    """
    content = system.get("parts") if isinstance(system, dict) else system
    spoken = [one for one in messages if isinstance(one, dict)]
    if any(one.get("role") == "system" and one.get("content") == content for one in spoken):
        return []
    segment = {"segment": "control"} if any(one.get("segment") for one in spoken) else {}
    return [{"role": "system", "content": content, **segment}]


def _within(value: Any, path: str) -> Any:
    """Return what stands at `path` in nested objects and lists; None where nothing does."""
    for name in path.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _other_layout(value: Mapping[str, Any]) -> str:
    """Name the setting that reads a row of another layout, in brackets."""
    shapes = {"conversations": "sharegpt", "instruction": "alpaca", "prompt": "prompt"}
    for name, shape in shapes.items():
        if name in value:
            return f" (rows.shape: {shape} reads these)"
    paths = sorted(_paths_of_messages(value, ""), key=lambda one: not one[1])
    path = paths[0][0] if paths else None
    return f" (rows.columns: {{messages: {path or 'NAME'}}} takes them from another)"


def _paths_of_messages(value: Mapping[str, Any], above: str) -> Iterator[tuple[str, bool]]:
    """Yield the paths of lists of objects that may be messages, at most three objects deep.

    Beside each, whether its first object says who speaks.
    """
    for name, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict) and name != "questions":
            yield above + name, bool({"role", "from", "type"} & item[0].keys())
        elif isinstance(item, dict) and above.count(".") < 2:
            yield from _paths_of_messages(item, f"{above}{name}.")


def _prompted(row: dict[str, Any], prompt: str) -> list[Any]:
    """Build the messages of a row of prompt and completion, which leave it."""
    if "prompt" not in row:
        raise MalformedRow("missing_field", f"no field {prompt!r}; found {sorted(row)}")
    return [*_said("user", row.pop("prompt")), *_said("assistant", row.pop("completion", None))]


def _said(role: str, value: Any) -> list[Any]:
    """Return messages as they are, and a text as a message of `role`."""
    if isinstance(value, list):
        return value
    if value is None:
        return []
    return [value if isinstance(value, dict) else {"role": role, "content": value}]


def _alpaca(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Build the messages of an Alpaca row, whose fields leave it."""
    instruction, history = row.pop("instruction", None), row.pop("history", [])
    given, output = row.pop("input", None), row.pop("output", None)
    if not isinstance(instruction, str) or not instruction.strip():
        raise MalformedRow("missing_field", "no text in 'instruction'; found " + str(sorted(row)))
    if not isinstance(history, list) or any(
        not isinstance(turns, list) or len(turns) != 2 for turns in history
    ):
        raise MalformedRow("not_an_object", "'history' is not a list of [user, assistant] pairs")
    asked = f"{instruction}\n\n{given}" if isinstance(given, str) and given.strip() else instruction
    said = [*itertools.chain.from_iterable(history), asked, *([output] if output else [])]
    roles = itertools.cycle(("user", "assistant"))
    return [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]


def _with_segments(messages: list[dict[str, Any]], config: RowsConfig) -> list[dict[str, Any]]:
    """Give every message its segment by the config's rule, where no message names one."""
    if config.segments == "given" or any("segment" in one for one in messages):
        return messages
    roles = [one.get("role") for one in messages]
    heads = next((i for i, role in enumerate(roles) if role not in _HEADS), len(roles))
    if config.segments == "first_turn" or (config.segments is None and not heads):
        # a greeting of the assistant's, if there is one, and the user's first message belong to it
        heads = next((i + 1 for i, role in enumerate(roles) if role == "user"), heads + 1)
    last = len(messages) - 1
    return [
        one
        | {
            "segment": "control"
            if i < heads
            else "completion"
            if i == last and roles[i] == "assistant" and "tool_calls" not in one
            else "stimulus"
        }
        for i, one in enumerate(messages)
    ]
