"""Calls of tools: what a message holds besides its role, its content and its segment.

It is kept in OpenAI's form, which chat templates read:

| message | holds |
|---|---|
| of an assistant | `tool_calls`: [{`id`, `type`: "function", `function`: {`name`, `arguments`}}] |
| of a tool | `tool_call_id`, `name` |
| the first of its conversation | `tools`: the definitions of those that are offered |

`Message.tool_use` is all of it as one JSON text, or None for a message that holds none. Arguments
are objects there, also where the source has them as JSON text, and stay in their order: templates
write them in that order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.strict_json import NotJSON, encodes, finite, name_of, parse_json, repeats
from core.tables import Message

TOOLS = "tools"
_CALL = {"id", "type", "function"}
_FUNCTION = {"name", "arguments"}
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class BadToolUse(ValueError):
    """A source's message is not of the form above; `reason` is the name of the rule."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_tool_use(role: str, value: Mapping[str, Any]) -> str | None:
    """`Message.tool_use` of a source's message; None if it holds none.

    Args:
        role: the message's.
        value: its fields `tool_calls`, `tool_call_id` and `name`, as far as it has them.

    Raises:
        BadToolUse: they are not of the form above, or not those of `role`.
    """
    found: dict[str, Any] = {}
    for name, item in value.items():
        wanted = "assistant" if name == "tool_calls" else "tool"
        if role != wanted:
            raise BadToolUse(
                "unknown_field", f"{name!r} in a message of role {role!r}; expected {wanted!r}"
            )
        found[name] = _calls(item) if name == "tool_calls" else _text(item, repr(name))
    return _JSON.encode(found) if found else None


def with_tools(messages: Sequence[Message], tools: Any) -> tuple[Message, ...]:
    """`messages` as a conversation in which `tools` are offered.

    Raises:
        BadToolUse: `tools` is no list of objects.
    """
    if not isinstance(tools, list):
        raise BadToolUse(
            "malformed_tool_call", f"'tools' is {name_of(tools)}; expected a list of definitions"
        )
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise BadToolUse("not_an_object", f"tools[{i}]: {name_of(tool)}; expected an object")
    first, *rest = messages
    return (replace(first, tool_use=_JSON.encode(_held(first) | {TOOLS: tools})), *rest)


def tools_of(messages: Sequence[Message]) -> list[Any] | None:
    """The definitions of the tools that are offered in a conversation; None without any."""
    return _held(messages[0]).get(TOOLS)


def tool_fields(message: Message) -> dict[str, Any]:
    """Those fields of `message` that tell of tools: `tool_calls`, `tool_call_id`, `name`."""
    return {name: item for name, item in _held(message).items() if name != TOOLS}


def for_template(message: Message) -> dict[str, Any]:
    """`message` as chat templates read it."""
    return {"role": message.role, "content": message.content, **tool_fields(message)}


def calls_said(tool_calls: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each call in words: its function as JSON."""
    return [_JSON.encode(call["function"]) for call in tool_calls]


def said(message: Message) -> str:
    """All that `message` says: its content, and a line for each call of a tool."""
    if message.tool_use is None:
        return message.content
    calls = calls_said(_held(message).get("tool_calls", []))
    return "\n".join(([message.content] if message.content else []) + calls)


def _held(message: Message) -> dict[str, Any]:
    return {} if message.tool_use is None else dict(json.loads(message.tool_use))


def _calls(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise BadToolUse(
            "malformed_tool_call", f"'tool_calls' is {name_of(value)}; expected a list of calls"
        )
    return [_call(one, f"tool_calls[{i}]") for i, one in enumerate(value)]


def _call(value: Any, where: str) -> dict[str, Any]:
    call = _fields(value, _CALL, where)
    if call.setdefault("type", "function") != "function":
        raise BadToolUse(
            "malformed_tool_call", f"{where}: type {call['type']!r}; expected 'function'"
        )
    function = _fields(call.get("function"), _FUNCTION, f"{where}.function")
    made: dict[str, Any] = {"id": _text(call["id"], f"{where}.id")} if "id" in call else {}
    return made | {
        "type": "function",
        "function": {
            "name": _text(function.get("name"), f"{where}.function.name"),
            "arguments": _arguments(function.get("arguments", {}), f"{where}.function.arguments"),
        },
    }


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else {}
        except NotJSON as error:
            raise BadToolUse(
                "malformed_tool_call", f"{where}: not JSON ({error.detail}); expected an object"
            ) from error
        # what the line's own check has passed is still to be seen inside a text
        if not finite(value):
            raise BadToolUse("not_finite", f"{where}: a number is beyond what a float holds")
        if not encodes(_JSON.encode(value)):
            raise BadToolUse(
                "invalid_unicode", f"{where}: half a surrogate pair; expected UTF-8 text"
            )
    if not isinstance(value, dict) or repeats(value):
        got = "an object that repeats a key" if isinstance(value, dict) else name_of(value)
        raise BadToolUse(
            "malformed_tool_call", f"{where} is {got}; expected an object, or its text"
        )
    return value


def _fields(value: Any, known: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadToolUse("malformed_tool_call", f"{where} is {name_of(value)}; expected an object")
    found = {name: item for name, item in value.items() if item is not None}
    if unknown := sorted(set(found) - known):
        expected = ", ".join(sorted(known))
        raise BadToolUse("unknown_field", f"{where}: {unknown[0]!r} is none of {expected}")
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        got = "empty" if isinstance(value, str) else name_of(value)
        raise BadToolUse("malformed_tool_call", f"{where} is {got}; expected text")
    return value
