"""Tool calls in messages, and the answers to them: read, stored and rendered.

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

from core.documents.strict_json import (
    InvalidJSON,
    fits_utf8,
    has_finite_numbers,
    has_repeated_key,
    json_type_name,
    parse_json,
)
from core.records.tables import Message

TOOLS = "tools"
_CALL = {"id", "type", "function"}
_FUNCTION = {"name", "arguments"}
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class InvalidToolUse(ValueError):
    """A source's message is not of the form above; `reason` is the name of the rule."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_tool_use(role: str, value: Mapping[str, Any]) -> str | None:
    """Encode what a source's message holds of tools as `Message.tool_use`; None for nothing.

    Args:
        role: the message's.
        value: its fields `tool_calls`, `tool_call_id` and `name`, as far as it has them.

    Raises:
        InvalidToolUse: they are not of the form above, or not those of `role`.
    """
    found: dict[str, Any] = {}
    for name, item in value.items():
        wanted = "assistant" if name == "tool_calls" else "tool"
        if role != wanted:
            raise InvalidToolUse(
                "unknown_field", f"{name!r} in a message of role {role!r}; expected {wanted!r}"
            )
        found[name] = _calls(item) if name == "tool_calls" else _text(item, repr(name))
    return _JSON.encode(found) if found else None


def offer_tools(messages: Sequence[Message], tools: Any) -> tuple[Message, ...]:
    """Return `messages` as a conversation in which `tools` are offered.

    Raises:
        InvalidToolUse: `tools` is no list of objects.
    """
    if not isinstance(tools, list):
        raise InvalidToolUse(
            "malformed_tool_call",
            f"'tools' is {json_type_name(tools)}; expected a list of definitions",
        )
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise InvalidToolUse(
                "not_an_object", f"tools[{i}]: {json_type_name(tool)}; expected an object"
            )
    first, *rest = messages
    return (replace(first, tool_use=_JSON.encode(_held(first) | {TOOLS: tools})), *rest)


def offered_tools(messages: Sequence[Message]) -> list[Any] | None:
    """Return the definitions of the tools that a conversation offers; None without any."""
    return _held(messages[0]).get(TOOLS)


def tool_fields(message: Message) -> dict[str, Any]:
    """Return the fields of `message` about tools: `tool_calls`, `tool_call_id`, `name`."""
    return {name: item for name, item in _held(message).items() if name != TOOLS}


def for_template(message: Message) -> dict[str, Any]:
    """Return `message` in the form that chat templates read."""
    return {"role": message.role, "content": message.content, **tool_fields(message)}


def arguments_as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message, as templates read it, with the arguments of its calls as JSON text."""
    if "tool_calls" not in message:
        return dict(message)
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": _JSON.encode(call["function"]["arguments"]),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def call_texts(tool_calls: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write each tool call as text: its function as JSON."""
    return [_JSON.encode(call["function"]) for call in tool_calls]


def message_text(message: Message) -> str:
    """Return all text of `message`: its content, and a line for each tool call."""
    if message.tool_use is None:
        return message.content
    calls = call_texts(_held(message).get("tool_calls", []))
    return "\n".join(([message.content] if message.content else []) + calls)


def _held(message: Message) -> dict[str, Any]:
    return {} if message.tool_use is None else dict(json.loads(message.tool_use))


def _calls(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise InvalidToolUse(
            "malformed_tool_call",
            f"'tool_calls' is {json_type_name(value)}; expected a list of calls",
        )
    return [_call(one, f"tool_calls[{i}]") for i, one in enumerate(value)]


def _call(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict) and value.get("function") is None and value.get("name"):
        # LangChain's form, and that of OpenAI's Responses
        given = value.get("arguments", value.get("args", {}))
        value = {
            "id": value.get("call_id") or value.get("id"),
            "function": {**value, "arguments": given},
        }
    call = _fields(value, _CALL, where)
    if call.setdefault("type", "function") != "function":
        raise InvalidToolUse(
            "malformed_tool_call", f"{where}: type {call['type']!r}; expected 'function'"
        )
    function = _fields(call.get("function"), _FUNCTION, f"{where}.function")
    made: dict[str, Any] = {"id": _text(call["id"], f"{where}.id")} if call.get("id") else {}
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
            value = {} if value is None else value  # "null" is how some clients call without any
        except InvalidJSON as error:
            raise InvalidToolUse(
                "malformed_tool_call", f"{where}: not JSON ({error.detail}); expected an object"
            ) from error
        # what the line's own check has passed is still to be seen inside a text
        if not has_finite_numbers(value):
            raise InvalidToolUse("not_finite", f"{where}: a number is beyond what a float holds")
        if not fits_utf8(_JSON.encode(value)):
            raise InvalidToolUse(
                "invalid_unicode", f"{where}: half a surrogate pair; expected UTF-8 text"
            )
    if not isinstance(value, dict) or has_repeated_key(value):
        got = "an object that repeats a key" if isinstance(value, dict) else json_type_name(value)
        raise InvalidToolUse(
            "malformed_tool_call", f"{where} is {got}; expected an object, or its text"
        )
    return value


def _fields(value: Any, known: set[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidToolUse(
            "malformed_tool_call", f"{where} is {json_type_name(value)}; expected an object"
        )
    return {name: item for name, item in value.items() if name in known and item is not None}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        got = "empty" if isinstance(value, str) else json_type_name(value)
        raise InvalidToolUse("malformed_tool_call", f"{where} is {got}; expected text")
    return value
