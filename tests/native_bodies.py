"""Replies in the native form of other APIs, and as streams that nobody asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from endpoint_kinds import Behaviour, good, text_of

from generators.llm.testing import is_probe

Writer = Callable[[str], Any]
"""Writes a body that gives this text as the reply."""


def replying(write: Writer) -> Behaviour:
    """Give all replies in this form."""
    return lambda number, body: (200, {}, write(text_of(good(body))))


def unfinished(write: Writer) -> Behaviour:
    """Give real replies in this form, and good ones to trial requests."""
    return lambda number, body: (200, {}, good(body) if is_probe(body) else write("Half of"))


def anthropic(text: str, reason: str = "end_turn") -> dict[str, Any]:
    content = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": text}]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": reason,
        "usage": {"input_tokens": 12, "output_tokens": 8},
    }


def anthropic_tool(text: str) -> dict[str, Any]:
    call = {"type": "tool_use", "name": "json", "input": json.loads(text)}
    return anthropic("", "tool_use") | {"content": [call]}


def gemini(text: str, reason: str = "STOP") -> dict[str, Any]:
    parts = [{"text": "Hm.", "thought": True}, {"text": text[:6]}, {"text": text[6:]}]
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": reason}],
        "usageMetadata": {
            "promptTokenCount": 12,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 3,
            "totalTokenCount": 20,
        },
    }


def gemini_filtered(text: str) -> dict[str, Any]:
    return gemini("") | {"candidates": [{"finishReason": "SAFETY", "safetyRatings": []}]}


def gemini_blocked(text: str) -> dict[str, Any]:
    return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 12}}


def responses(text: str, **changes: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": content}]
    usage = {"input_tokens": 12, "output_tokens": 8, "total_tokens": 20}
    return {"object": "response", "status": "completed", "output": output, "usage": usage} | changes


def responses_cut(text: str) -> dict[str, Any]:
    return responses(text, status="incomplete", incomplete_details={"reason": "max_output_tokens"})


def ollama(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    counts = {"prompt_eval_count": 12, "eval_count": 8}
    return {"message": message, "done": True, "done_reason": "stop", **counts}


def cohere(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    usage = {"tokens": {"input_tokens": 12, "output_tokens": 8}}
    return {"id": "1", "finish_reason": "COMPLETE", "message": message, "usage": usage}


def openai(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 12, "completion_tokens": 8}}


def within(name: str) -> Writer:
    return lambda text: {"success": True, name: openai(text)}


# streams


def _events(events: list[dict[str, Any]], *ends: str) -> str:
    lines = [": keep alive", *(f"event: x\ndata: {json.dumps(one)}" for one in events), *ends]
    return "\n\n".join(lines) + "\n\n"


def _chunks(text: str) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": "Hm."}]
    deltas += [{"content": text[at : at + 5]} for at in range(0, len(text), 5)]
    return [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]


def stream(text: str) -> str:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 8}}
    return _events([*_chunks(text), end, usage], "data: [DONE]")


def stream_of_a_call(text: str) -> str:
    made = [{"function": {"name": "json", "arguments": ""}}] + [
        {"function": {"arguments": text[at : at + 5]}} for at in range(0, len(text), 5)
    ]
    deltas = [{"tool_calls": [{"index": 0, **call}]} for call in made]
    usage = {"prompt_tokens": 12, "completion_tokens": 8}
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": one}]} for one in deltas]
    return _events([*chunks, {"choices": [], "usage": usage}], "data: [DONE]")


def stream_of_one(text: str) -> str:
    return _events([openai(text)])


def stream_of_anthropic(text: str) -> str:
    whole = anthropic(text)
    message = whole | {"content": [], "stop_reason": None, "usage": {"input_tokens": 12}}
    deltas = [{"type": "text_delta", "text": text[at : at + 5]} for at in range(0, len(text), 5)]
    end = {"stop_reason": "end_turn"}
    return _events(
        [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": 8}},
            {"type": "message_stop"},
        ]
    )


def stream_of_gemini(text: str) -> str:
    first, last = gemini(text[:9]), gemini(text[9:])
    del first["candidates"][0]["finishReason"], first["usageMetadata"]
    return _events([first, last])


def stream_of_responses(text: str) -> str:
    return _events([{"type": "response.completed", "response": responses(text)}])


def comment_before(text: str) -> str:
    return f": PROCESSING\n\n: PROCESSING\n\n{json.dumps(openai(text))}"


def stream_broken_off_at_first(number: int, body: Mapping[str, Any]) -> Any:
    whole = stream(text_of(good(body)))
    return 200, {}, whole[: len(whole) // 2] if number in (1, 3) else whole


def stream_with_an_error_at_first(number: int, body: Mapping[str, Any]) -> Any:
    limit = {"error": {"code": 429, "message": "Rate limit exceeded"}}
    return 200, {}, _events([limit]) if number in (1, 3) else stream(text_of(good(body)))


NATIVE: dict[str, Writer] = {
    "Anthropic": anthropic,
    "Anthropic, a tool": anthropic_tool,
    "Gemini": gemini,
    "Gemini, a list": lambda text: [gemini(text)],
    "responses": responses,
    "Ollama": ollama,
    "Cohere": cohere,
    "in data": within("data"),
    "in result": within("result"),
    "stream": stream,
    "stream of a call": stream_of_a_call,
    "stream of one": stream_of_one,
    "stream of Anthropic": stream_of_anthropic,
    "stream of Gemini": stream_of_gemini,
    "stream of responses": stream_of_responses,
    "comment before": comment_before,
}


# choices


def choices(*texts: str | None, order: tuple[int, ...]) -> Behaviour:
    """Give several choices; a text of "" is the good one."""

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        made = good(body)
        contents = [text_of(made) if text == "" else text for text in texts]
        made["choices"] = [
            {"index": i, "message": {"content": contents[i]}, "finish_reason": "stop"}
            for i in order
        ]
        return 200, {}, made

    return behaviour


def no_choice_at_first(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    if number in (1, 3):
        made["choices"] = []
        made["prompt_filter_results"] = [{"content_filter_results": {"hate": {"filtered": False}}}]
    return 200, {}, made


def no_choice(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    if not is_probe(body):
        made["choices"] = []
    return 200, {}, made
