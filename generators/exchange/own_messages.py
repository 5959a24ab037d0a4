"""Messages of own conversations are read in the forms in which SDKs and data sets have them.

OpenAI's form is the base: `role`, `content`, `tool_calls`, `tool_call_id`, `name`. Besides it are
taken content in parts, Anthropic's blocks `tool_use` and `tool_result`, the older `function_call`
and role `function`, pairs of role and content, and what sdk_messages.py brings into that form. What
an SDK adds and no template reads (empty fields, ids, annotations, indices, reasoning apart from the
content) is left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from core.documents.strict_json import InvalidJSON, json_line, json_type_name, parse_json
from core.records.tables import Message, Segment
from core.records.tool_use import TOOLS, InvalidToolUse, offer_tools, read_tool_use
from generators.exchange.sdk_messages import ROLE_NAMES, ROLES, in_openai_form, plain_part
from generators.exchange.source_rows import MalformedRow, read_text

SEGMENTS: tuple[Segment, ...] = get_args(Segment)
_TOOL_FIELDS = ("tool_calls", "tool_call_id", "name")
_FIELDS = ("role", "content", "segment", *_TOOL_FIELDS)
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_THOUGHT_PARTS = ("thinking", "redacted_thinking", "reasoning", "step-start")


def read_messages(values: Sequence[Any], roles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Bring a row's messages into OpenAI's form, without the fields that are empty.

    Args:
        values: the messages as the row has them, under their names `role` and `content`.
        roles: further names of roles.

    Returns:
        plain objects, whose `content` is text or absent; a message with results of tools beside
        text becomes several.

    Raises:
        MalformedRow: a message is no object, or has content that is no text.
    """
    found: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        where = f"messages[{index}]: "
        given = in_openai_form(_filled(_as_object(value, where)))
        role = given.get("role")
        if isinstance(role, str):
            plain = role.strip().lower()
            known = plain if plain in ROLES else role
            given["role"] = roles.get(role, ROLE_NAMES.get(plain, known))
            if plain == "function_call":
                given = _with_calls_in_content(given)
        elif given.get("type") == "reasoning":
            continue  # an item of its own in OpenAI's Responses
        elif role is None:
            raise _without_role(value, given, where)
        if not given.get("content") and isinstance(given.get("refusal"), str):
            given["content"] = given["refusal"]
        if given.get("tool_calls") == []:
            del given["tool_calls"]
        call = given.pop("function_call", None)
        if isinstance(call, dict) and call.get("name") and "tool_calls" not in given:
            given["tool_calls"] = [{"function": call}]
        if given.get("role") == "tool" and isinstance(given.get("content"), dict):
            given["content"] = json_line(given["content"])  # a result as the SDK parsed it
        found += _without_parts(given, where) if isinstance(given.get("content"), list) else [given]
    return found


def _as_object(value: Any, where: str) -> dict[str, Any]:
    """Return a message as an object, which may be a pair of role and content.

    Raises:
        MalformedRow: it is neither.
    """
    if isinstance(value, list) and [type(item) for item in value] == [str, str]:
        return dict(zip(("role", "content"), value, strict=True))
    if not isinstance(value, dict):
        raise MalformedRow("not_an_object", f"{where}{json_type_name(value)}; expected an object")
    return value


def _without_role(value: Any, given: Mapping[str, Any], where: str) -> MalformedRow:
    """Return what is wrong with a message without a role."""
    if isinstance(kind := given.get("type"), str):
        return MalformedRow(
            "not_text",
            f"{where}an item of type {kind!r}; expected a message, or a call of a function: a "
            "target reads no other",
        )
    return MalformedRow(
        "missing_field",
        f"{where}no field 'role'; found {sorted(value)} (rows.columns: {{role: NAME, "
        "content: NAME} takes them from others)",
    )


def _filled(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message that hold something, its segment in lower case."""
    given = {name: item for name, item in value.items() if item is not None}
    if isinstance(segment := given.pop("segment", ""), str):
        segment = segment.strip().lower()
    return given if segment == "" else given | {"segment": segment}


def _with_calls_in_content(given: dict[str, Any]) -> dict[str, Any]:
    """Read a message whose content is a call, or a list of calls, as JSON text; else return it."""
    try:
        found = parse_json(given.get("content", ""))
    except (InvalidJSON, TypeError):
        return given
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        return given
    own = {name: item for name, item in given.items() if name != "content"}
    return own | {"tool_calls": [{"function": call} for call in calls]}


def read_message(index: int, value: Mapping[str, Any]) -> Message:
    """Read one message that `read_messages` returned.

    Raises:
        MalformedRow: it is not of the form.
    """
    where = f"messages[{index}]: "
    for name, item in value.items():
        near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.8)
        if name not in _FIELDS and near and item not in ("", [], {}):
            raise MalformedRow(
                "unknown_field",
                f"{where}{name!r} is not a field of a message; did you mean {near[0]!r}?",
            )
    role, segment = read_text(value, "role", where), read_text(value, "segment", where)
    if role not in ROLES:
        raise MalformedRow(
            "unknown_role",
            f"{where}role {role!r}; expected one of {', '.join(ROLES)} (rows.roles: {{{role}: "
            "ROLE} renames it)",
        )
    if segment not in SEGMENTS:
        raise MalformedRow(
            "unknown_segment", f"{where}segment {segment!r}; expected one of {', '.join(SEGMENTS)}"
        )
    of_tools = {name: value[name] for name in _TOOL_FIELDS if name in value}
    if role != "tool":
        of_tools.pop("name", None)  # who speaks, which no template writes
    try:
        tool_use = read_tool_use(role, of_tools)
    except InvalidToolUse as fault:
        raise MalformedRow(fault.reason, f"{where}{fault.detail}") from fault
    # a tool may well return nothing, and who calls one need not speak
    if (role == "tool" or "tool_calls" in value) and not value.get("content"):
        content = ""
    elif role == "tool" and isinstance(value["content"], str):
        content = value["content"]
    else:
        content = read_text(value, "content", where)
    return Message(role=role, content=content, segment=segment, tool_use=tool_use)


def _without_parts(given: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Join the parts of a content; results of tools become messages of their own, in front."""
    texts: list[str] = []
    calls: list[Any] = []
    results: list[dict[str, Any]] = []
    for part in map(plain_part, given["content"]):
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict) or not isinstance(kind, str):
            raise MalformedRow("not_a_string", f"{where}a part is {json_type_name(part)}")
        elif kind == "tool_use":
            function = {"name": part.get("name"), "arguments": part.get("input")}
            own_id = {"id": part["id"]} if part.get("id") else {}
            calls.append({**own_id, "type": "function", "function": function})
        elif kind == "tool_result":
            result = {name: item for name, item in given.items() if name == "segment"}
            result |= {"role": "tool", "tool_call_id": part.get("tool_use_id")}
            result |= {"name": part.get("name")}
            result |= {"content": _joined(part.get("content"), where)}
            results.append({name: item for name, item in result.items() if item is not None})
        elif kind not in _THOUGHT_PARTS:
            texts.append(_joined([part], where))
    rest = given | {"content": "".join(texts)}
    if calls:
        known = given.get("tool_calls", [])
        rest["tool_calls"] = [*known, *calls] if isinstance(known, list) else known
    return results if results and not texts else [*results, rest]


def _joined(content: Any, where: str) -> str:
    """Join the texts of a content: a text, a list of parts, or nothing."""
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for part in map(plain_part, content if isinstance(content, list) else [content]):
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = (
            part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else part
        )
        if isinstance(text, dict):  # as threads of OpenAI's Assistants have it
            text = text.get("value")
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            raise MalformedRow(
                "not_text",
                f"{where}a part of type {kind!r}; expected text: a target reads no other",
            )
        texts.append(text)
    return "".join(texts)


def read_conversation(value: Mapping[str, Any]) -> tuple[Message, ...]:
    """Read the messages of a row, and check the order of their segments.

    Raises:
        MalformedRow: a message is malformed, or the segments are not as masking needs them.
    """
    found = tuple(read_message(i, one) for i, one in enumerate(value["messages"]))
    segments = [message.segment for message in found]
    if "control" not in segments:
        raise MalformedRow("no_control", "no message has the segment 'control'")
    last = len(segments) - 1 - segments[::-1].index("control")
    for i, segment in enumerate(segments[:last]):
        if segment in ("stimulus", "completion"):
            raise MalformedRow(
                "control_late",
                f"messages[{last}]: a control after messages[{i}], a {segment}; expected all of "
                "the control first: what comes before it is withheld with it",
            )
    if not next(message.content for message in found if message.segment == "control"):
        raise MalformedRow(
            "empty_field", "the control begins with a call of a tool; expected one with content"
        )
    if found[-1].role == "assistant" and segments[-1] == "stimulus":
        raise MalformedRow(
            "open_end",
            f"messages[{len(found) - 1}]: the conversation ends with the assistant, as a stimulus; "
            "expected the segment 'completion'",
        )
    if value.get(TOOLS) in (None, []):
        return found
    try:
        return offer_tools(found, value[TOOLS])
    except InvalidToolUse as fault:
        raise MalformedRow(fault.reason, fault.detail) from fault
