"""Parse the HTTP body of a reply, whatever API wrote it, as a chat completion of OpenAI's form.

| what comes | how it is read |
|---|---|
| server-sent events, though no stream was asked for | put together, if the stream has its end |
| comments of server-sent events before the body | left out |
| the native form of Anthropic, Gemini, OpenAI's responses, Cohere, Ollama | its fields renamed |
| a list of one body, or a body within `data`, `result` or `response` | as the body within |

All else stays as it is, errors above all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.documents.strict_json import load_json

Body = dict[str, Any]

_EVENT_FIELDS = ("event", "id", "retry", "")
"""Fields of server-sent events beside their data; a comment's has no name."""
_STREAM = tuple(f"{name}:" for name in ("data", *_EVENT_FIELDS))
_WRAPPERS = ("data", "result", "response")


def parse_body(raw: str) -> Body | None:
    """Parse the body of a reply leniently (servers write `Infinity` into numbers).

    Returns:
        A chat completion, an error or another object as it came; None where it is no JSON object,
        or a stream that breaks off.
    """
    value = _parse_stream(raw) if is_stream(raw) else _parse_json(raw)
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = value[0] if len(value) == 1 else _join_events(value, ended=False)
    return _as_completion(value) if isinstance(value, dict) else None


def is_stream(raw: str) -> bool:
    """Tell whether a body begins like server-sent events."""
    return raw.lstrip().startswith(_STREAM)


def _parse_json(raw: str) -> Any:
    try:
        return load_json(raw)
    except ValueError:
        return None


def _parse_stream(raw: str) -> Any:
    """Put the events of a stream together; without events, parse what is no comment."""
    events: list[Body] = []
    other: list[str] = []
    begun, ended = "", False
    for line in raw.split("\n"):
        name, colon, data = line.strip().partition(":")
        if colon and name == "data":
            begun += data
            ended = ended or begun.strip() == "[DONE]"
            event = _parse_json(begun)
            if ended or event is not None:
                begun = ""
            if isinstance(event, dict):
                events.append(event)
        elif not (colon and name in _EVENT_FIELDS):
            other.append(line)
    if not events:
        return _parse_json("\n".join(other))
    return None if begun else _join_events(events, ended=ended)


def _join_events(events: Sequence[Body], *, ended: bool) -> Body | None:
    """Join the events of a stream; None where it breaks off.

    Args:
        events: in their order.
        ended: whether the end was said apart from them.
    """
    for event in events:
        kind = str(event.get("type"))
        if event.get("error"):
            return event
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            return _object(event.get("response"))
    if any(event.get("type") == "message_start" for event in events):
        return _join_anthropic(events)
    if any("candidates" in event for event in events):
        return _join_gemini(events)
    return _join_chunks(events, ended=ended)


def _join_chunks(events: Sequence[Body], *, ended: bool) -> Body | None:
    """Join the chunks of a chat completion, or of a completion of token ids."""
    message: Body = {}
    calls: dict[Any, Body] = {}
    choice: Body = {"index": 0, "finish_reason": None}
    whole: Body = {}
    for event in events:
        whole |= {name: value for name, value in event.items() if value is not None}
        for own in _objects(event.get("choices")):
            if "message" in own:
                return event
            if own.get("index", 0) != 0:
                continue
            for name in ("finish_reason", "native_finish_reason", "error"):
                choice[name] = own.get(name) or choice.get(name)
            _append(choice, {name: own.get(name) for name in ("text", "token_ids")})
            delta = _object(own.get("delta"))
            for call in _objects(delta.pop("tool_calls", None)):
                function = calls.setdefault(call.get("index", 0), {})
                _append(function, {"arguments": _object(call.get("function")).get("arguments")})
            _append(message, delta)
    if not (ended or choice["finish_reason"]):
        return None
    if calls:
        message["tool_calls"] = [{"function": function} for function in calls.values()]
    return {**whole, "choices": [choice if "text" in choice else {**choice, "message": message}]}


def _append(whole: Body, part: Mapping[str, Any]) -> None:
    """Append the texts and lists of a part to those of the whole; others replace what was there."""
    for name, value in part.items():
        if value is None:
            continue
        before = whole.get(name)
        joins = isinstance(value, str | list) and type(before) is type(value) and name != "role"
        whole[name] = before + value if joins else value


def _join_anthropic(events: Sequence[Body]) -> Body | None:
    message: Body = {}
    parts: dict[Any, Body] = {}
    for event in events:
        delta, place = _object(event.get("delta")), event.get("index")
        if event.get("type") == "message_start":
            message = _object(event.get("message"))
        elif event.get("type") == "content_block_start":
            parts[place] = _object(event.get("content_block"))
        elif event.get("type") == "content_block_delta":
            part = parts.setdefault(place, {"type": "text"})
            _append(part, {name: delta.get(name) for name in ("text", "partial_json")})
        elif event.get("type") == "message_delta":
            message["stop_reason"] = delta.get("stop_reason")
            usage = _object(message.get("usage")) | _object(event.get("usage"))
            message["usage"] = usage
    for part in parts.values():
        if "partial_json" in part:
            part["input"] = _parse_json(part["partial_json"])
    return {**message, "content": list(parts.values())} if message.get("stop_reason") else None


def _join_gemini(events: Sequence[Body]) -> Body | None:
    whole: Body = {}
    parts: list[Any] = []
    candidate: Body = {}
    for event in events:
        whole |= event
        own = next(iter(_objects(event.get("candidates"))), {})
        candidate |= own
        parts += _objects(_object(own.get("content")).get("parts"))
    candidate["content"] = {"parts": parts}
    return {**whole, "candidates": [candidate]} if candidate.get("finishReason") else None


def _as_completion(body: Body) -> Body:
    """Write the native form of another API as a chat completion."""
    if body.get("error") or body.get("choices"):
        return body
    for fits, write in _FORMS:
        if fits(body):
            return write(body)
    for name in _WRAPPERS:
        inner = body.get(name)
        if isinstance(inner, dict) and _objects(inner.get("choices")):
            return inner
    return body


def _from_anthropic(body: Body) -> Body:
    content = [_as_text_part(part) for part in _objects(body.get("content"))]
    return _completion(content, body.get("stop_reason"), body.get("usage"))


def _from_gemini(body: Body) -> Body:
    counts = _object(body.get("usageMetadata"))
    usage = {
        "prompt_tokens": counts.get("promptTokenCount"),
        "completion_tokens": counts.get("candidatesTokenCount"),
        "total_tokens": counts.get("totalTokenCount"),
        "prompt_tokens_details": {"cached_tokens": counts.get("cachedContentTokenCount")},
    }
    candidates = _objects(body.get("candidates"))
    if not candidates:
        return {**body, "choices": [], "usage": usage}
    parts = _objects(_object(candidates[0].get("content")).get("parts"))
    content = [
        {"type": "thinking" if part.get("thought") else "text", "text": part.get("text")}
        for part in parts
    ]
    return _completion(content, candidates[0].get("finishReason"), usage)


def _from_responses(body: Body) -> Body:
    content: list[Body] = []
    for item in _objects(body["output"]):
        content += _objects(item.get("content")) if item.get("type") == "message" else [item]
    reason = _object(body.get("incomplete_details")).get("reason")
    return _completion(content, reason or body.get("status"), body.get("usage"))


def _from_message(body: Body) -> Body:
    """Read Ollama's reply, or Cohere's: a message without choices."""
    usage = {
        "prompt_tokens": body.get("prompt_eval_count"),
        "completion_tokens": body.get("eval_count"),
    }
    if "usage" in body:
        counts = _object(body["usage"])
        usage = _object(counts.get("tokens")) or counts
    reason = body.get("done_reason") or body.get("finish_reason")
    choice = {"index": 0, "message": body["message"], "finish_reason": reason}
    return {"choices": [choice], "usage": usage}


_FORMS: tuple[tuple[Callable[[Body], bool], Callable[[Body], Body]], ...] = (
    (lambda body: body.get("type") == "message" and "stop_reason" in body, _from_anthropic),
    (lambda body: "candidates" in body or "promptFeedback" in body, _from_gemini),
    (lambda body: body.get("object") == "response" and "output" in body, _from_responses),
    (
        lambda body: (
            isinstance(body.get("message"), dict)
            and bool(body.get("done") or body.get("finish_reason"))
        ),
        _from_message,
    ),
)


def _as_text_part(part: Body) -> Body:
    """Write the JSON that a reply gives as a tool's input as text."""
    if part.get("type") == "tool_use" and isinstance(part.get("input"), dict):
        return {"type": "text", "text": json.dumps(part["input"], ensure_ascii=False)}
    return part


def _completion(content: Any, reason: Any, usage: Any) -> Body:
    message = {"role": "assistant", "content": content}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage,
    }


def _object(value: Any) -> Body:
    return dict(value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Body]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
