"""Messages as SDKs hold them, brought into the form of OpenAI's chat messages.

| SDK | message | part of a content |
|---|---|---|
| OpenAI's Responses | items known by their `type` | `input_text`, `output_text` |
| LangChain | `type`, with its fields in `data` or `kwargs`, or class names | |
| Gemini | `parts` | `functionCall`, `functionResponse`, `thought` |
| Bedrock | | `toolUse`, `toolResult`, `reasoningContent` |
| LlamaIndex, Vercel | `blocks`, `parts` | `block_type` |
"""

from __future__ import annotations

import re
from typing import Any

from core.documents.strict_json import json_line
from core.records.tables import PLAIN_TEXT

ROLES = ("system", "developer", "user", "assistant", "tool", PLAIN_TEXT)
ROLE_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function": "tool",
    "function_call": "assistant",
    "observation": "tool",
}
"""Other names of roles: those of ShareGPT, Gemini, Cohere and the older form of OpenAI."""
_CLASS = re.compile(r"(\w+?)Message(?:Chunk)?")


def in_openai_form(given: dict[str, Any]) -> dict[str, Any]:
    """Return a message, or an item of a conversation, in the form of OpenAI's chat messages."""
    if "content" not in given:
        parts = next(
            (given[n] for n in ("parts", "blocks") if isinstance(given.get(n), list)), None
        )
        given = given if parts is None else given | {"content": parts}
    inner = given.get("kwargs")
    if given.get("type") == "constructor" and isinstance(inner, dict):  # LangChain's dumpd
        path = given.get("id")
        given = {"type": path[-1] if isinstance(path, list) and path else "", **inner}
    kind = given.get("type")
    if "role" in given or not isinstance(kind, str):
        return given
    if kind == "function_call":
        return {"role": "assistant", "tool_calls": [given]}
    if kind == "custom_tool_call":
        call = {"name": given.get("name"), "arguments": {"input": given.get("input", "")}}
        own_id = {"id": given["call_id"]} if "call_id" in given else {}
        return {"role": "assistant", "tool_calls": [{**own_id, "function": call}]}
    if kind in ("function_call_output", "custom_tool_call_output"):
        called = {"tool_call_id": given["call_id"]} if "call_id" in given else {}
        return {"role": "tool", "content": given.get("output", ""), **called}
    named = _CLASS.fullmatch(kind)
    name = named[1].lower() if named else kind
    if name in ROLE_NAMES or name in ROLES:
        inner = given.get("data")
        return {**(inner if isinstance(inner, dict) else given), "role": name}
    return given


def plain_part(part: Any) -> Any:
    """Return a part of a content in Anthropic's form, whose kind is named by `type`."""
    if not isinstance(part, dict) or "type" in part:
        return part
    if isinstance(kind := part.get("block_type"), str):
        return {**part, "type": kind}
    if part.get("thought") is True or "reasoningContent" in part:
        return {"type": "reasoning"}
    for name in ("toolUse", "functionCall"):
        if isinstance(call := part.get(name), dict):
            given = call.get("input", call.get("args", {}))
            own_id = call.get("toolUseId", call.get("id"))
            return {"type": "tool_use", "id": own_id, "name": call.get("name"), "input": given}
    for name in ("toolResult", "functionResponse"):
        if isinstance(reply := part.get(name), dict):
            return {
                "type": "tool_result",
                "tool_use_id": reply.get("toolUseId", reply.get("id")),
                "name": reply.get("name"),
                "content": _result(reply.get("content", reply.get("response"))),
            }
    return part


def _result(content: Any) -> Any:
    """Return what a tool returned as text, or as parts of text."""
    if isinstance(content, dict):
        return json_line(content)
    if isinstance(content, list):
        return [
            {"type": "text", "text": json_line(one["json"])}
            if isinstance(one, dict) and "json" in one
            else one
            for one in content
        ]
    return content
