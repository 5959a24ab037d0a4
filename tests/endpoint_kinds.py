"""Endpoints as people have them: how each departs from OpenAI's newest, in a few lines of our own.

Each kind is a function of the number of a POST (from 1) and the request's body, and gives status,
headers and body of the response.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import http_endpoint
from http_endpoint import ScriptedResponse

from generators.llm.chat.structured import PROBE_REPLY
from generators.llm.testing import chat_completion, is_probe, plausible_reply

Behaviour = Callable[[int, Mapping[str, Any]], tuple[int, Mapping[str, str], Any]]


class EndpointOfKind(http_endpoint.ScriptedEndpoint):
    """An endpoint that behaves as its kind does; `sent` has every body, refused ones too."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__()
        self._behaviour = behaviour
        self._numbers = itertools.count(1)

    def complete(self, body: dict[str, Any]) -> ScriptedResponse:
        status, headers, made = self._behaviour(next(self._numbers), body)
        return ScriptedResponse(status, made, headers)


def good(body: Mapping[str, Any], content: Any = None) -> dict[str, Any]:
    """Make a chat completion whose content fits the schema that was asked for."""
    if content is None:
        content = PROBE_REPLY if is_probe(body) else plausible_reply(body)
    return chat_completion(body, content)


def refused(message: str, status: int = 400, **more: Any) -> tuple[int, Mapping[str, str], Any]:
    return status, {}, {"error": {"message": message, **more}}


def with_choice(body: Mapping[str, Any], **choice: Any) -> tuple[int, Mapping[str, str], Any]:
    """Make a good completion with a changed choice, for real requests alone."""
    made = good(body)
    if not is_probe(body):
        made["choices"][0] |= choice
    return 200, {}, made


def text_of(made: Mapping[str, Any]) -> str:
    return str(made["choices"][0]["message"]["content"])


# what is refused


def renamed_limit(number: int, body: Mapping[str, Any]) -> Any:
    if "max_tokens" in body:
        return refused("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    return 200, {}, good(body)


def old_limit(number: int, body: Mapping[str, Any]) -> Any:
    if "max_completion_tokens" in body:
        return refused("[max_completion_tokens]: Extra inputs are not permitted", 422)
    return 200, {}, good(body)


def one_of_temperature_and_top_p(number: int, body: Mapping[str, Any]) -> Any:
    if "temperature" in body and "top_p" in body:
        return refused("`temperature` and `top_p` cannot both be specified for this model.")
    return 200, {}, good(body)


def neither_temperature_nor_top_p(number: int, body: Mapping[str, Any]) -> Any:
    for name in ("temperature", "top_p"):
        if name in body:
            return refused(
                f"Unsupported value: '{name}' does not support {body[name]} with this model. Only "
                "the default (1) value is supported.",
                param=name,
                code="unsupported_value",
            )
    return 200, {}, good(body)


def no_seed(number: int, body: Mapping[str, Any]) -> Any:
    if "seed" in body:
        detail = [{"type": "extra_forbidden", "loc": ["body", "seed"]}]
        return 422, {}, {"object": "error", "message": {"detail": detail}, "type": "invalid"}
    return 200, {}, good(body)


def no_system_role(status: int) -> Behaviour:
    """Refuse a system message, as templates of Gemma 2 do (llama.cpp: with HTTP 500)."""

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        if body["messages"][0]["role"] == "system":
            return refused("Jinja Exception: System role not supported", status)
        return 200, {}, good(body)

    return behaviour


def refuses_one_after_another(number: int, body: Mapping[str, Any]) -> Any:
    """Refuse nearly all that can be refused, each only when the others are mended."""
    if "max_tokens" in body:
        return refused("Use 'max_completion_tokens' instead of max_tokens.")
    for name, spelled in (("temperature", "temperature"), ("top_p", "topP"), ("seed", "seed")):
        if name in body:
            return refused(f"This model doesn't support the {spelled} field.", 422)
    if body["messages"][0]["role"] == "system":
        return refused("Only user and assistant roles are supported!")
    if "response_format" in body:
        return refused("This response_format type is unavailable now")
    return 200, {}, good(body)


def thinks_first(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    if (body.get("max_tokens") or 4096) < 250:
        thought = {"role": "assistant", "content": None, "reasoning_content": "Let me see. " * 9}
        made["choices"][0] |= {"finish_reason": "length", "message": thought}
    return 200, {}, made


def lists_what_it_takes(number: int, body: Mapping[str, Any]) -> Any:
    """Refuse fields one by one, and list those that are known, as Rust's servers do."""
    for name in ("seed", "top_p"):
        if name in body:
            known = "expected one of `model`, `messages`, `max_tokens`, `temperature`"
            return 422, {}, f"Failed to deserialize the body: unknown field `{name}`, {known}"
    return (200, {}, good(body)) if "max_tokens" in body else refused("unknown field")


def only_one(number: int, body: Mapping[str, Any]) -> Any:
    if "temperature" in body:
        return refused("temperature must be 1 for this model")
    return 200, {}, good(body)


# replies in others' words


def content_parts(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Is {it} so?"}]}
    text = text_of(made)
    halves = [{"type": "text", "text": half} for half in (text[:9], text[9:])]
    made["choices"][0]["message"]["content"] = [thought, *halves]
    return 200, {}, made


def thought_inside(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    message = made["choices"][0]["message"]
    message["content"] = f'<think>{{"a": "no"}}</think>\n{message["content"]}'
    return 200, {}, made


def thought_of(begin: str, end: str) -> Behaviour:
    """Think between these marks, of an object that is no answer."""

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        return 200, {}, good(body, f'{begin}{{"a": "no"}}{end}{text_of(good(body))}')

    return behaviour


def tells_of_thoughts(number: int, body: Mapping[str, Any]) -> Any:
    return 200, {}, good(body, None if is_probe(body) else {"a": "It ends with </think>, it says."})


def in_a_call(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    call = {"type": "function", "function": {"name": "json_tool", "arguments": text_of(made)}}
    made["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    made["choices"][0] |= {"finish_reason": "tool_calls", "text": ""}
    return 200, {}, made


def in_a_function_call(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    call = {"name": "json_tool", "arguments": text_of(made)}
    made["choices"][0]["message"] |= {"content": None, "function_call": call}
    return 200, {}, made


def content_as_object(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    made["choices"][0]["message"]["content"] = json.loads(text_of(made))
    return 200, {}, made


def byte_order_mark(number: int, body: Mapping[str, Any]) -> Any:
    return 200, {}, b"\xef\xbb\xbf" + json.dumps(good(body)).encode()


def ended_as(reason: str, *, cut: bool = True) -> Behaviour:
    """End replies with a finish reason, in the midst of their text where they are cut."""

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        text = text_of(good(body))
        message = {"role": "assistant", "content": text[:30] if cut else text}
        return with_choice(body, finish_reason=reason, message=message)

    return behaviour


def breaks_off_at_first(reason: str) -> Behaviour:
    """Break the first replies off by a failure of the server's."""

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        made = good(body)
        if number in (1, 3):
            choice = made["choices"][0]
            choice |= {"finish_reason": reason}
            choice["message"]["content"] = choice["message"]["content"][:9]
        return 200, {}, made

    return behaviour


def fenced(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    message = made["choices"][0]["message"]
    message["content"] = f"Here you are:\n```json\n{message['content']}\n```"
    return 200, {}, made


def ends_within_its_thought(number: int, body: Mapping[str, Any]) -> Any:
    message = {"role": "assistant", "content": "<think>It may be that"}
    return with_choice(body, message=message)


def context_in_200(number: int, body: Mapping[str, Any]) -> Any:
    if is_probe(body):
        return 200, {}, good(body)
    message = "This model's maximum context length is 2048 tokens."
    return 200, {}, {"object": "error", "message": message, "code": 40303}


def native_safety(number: int, body: Mapping[str, Any]) -> Any:
    return with_choice(body, finish_reason="SAFETY", message={"role": "assistant"})


def filter_without_message(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    if not is_probe(body):
        made["choices"][0] = {"index": 0, "finish_reason": "content_filter", "logprobs": None}
    return 200, {}, made


def blocked_prompt(number: int, body: Mapping[str, Any]) -> Any:
    if is_probe(body):
        return 200, {}, good(body)
    return 200, {}, {"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}


def native_length(number: int, body: Mapping[str, Any]) -> Any:
    message = {"role": "assistant", "content": text_of(good(body))[:30]}
    return with_choice(body, finish_reason="MAX_TOKENS", message=message)


def declines(number: int, body: Mapping[str, Any]) -> Any:
    message = {"role": "assistant", "content": "I would rather not."}
    return with_choice(body, finish_reason="refusal", message=message)


def declines_in_a_part(number: int, body: Mapping[str, Any]) -> Any:
    part = {"type": "refusal", "refusal": "I would rather not."}
    return with_choice(body, message={"role": "assistant", "content": [part]})


def flagged_in_200(number: int, body: Mapping[str, Any]) -> Any:
    if is_probe(body):
        return 200, {}, good(body)
    return 200, {}, {"error": {"message": "Refused by the content filter", "code": "filtered"}}


def flagged_input(number: int, body: Mapping[str, Any]) -> Any:
    if is_probe(body):
        return 200, {}, good(body)
    return refused("Your input was flagged by moderation", 403, metadata={"reasons": ["x"]})


def no_usage(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    del made["usage"]
    return 200, {}, made


def endless_usage(number: int, body: Mapping[str, Any]) -> Any:
    made = good(body)
    made["usage"] = {"prompt_tokens": float("inf"), "completion_tokens": 10**400}
    return 200, {}, made


def half_a_pair(number: int, body: Mapping[str, Any]) -> Any:
    text = '{"probe": "latentqa"}' if is_probe(body) else '{"a": "half \\ud83d of it"}'
    made = good(body, text)
    if not is_probe(body) and number % 2:
        made["choices"][0]["message"]["content"] = "\ud83d " + text
    return 200, {}, made


def deep_nesting(number: int, body: Mapping[str, Any]) -> Any:
    if is_probe(body):
        return 200, {}, good(body)
    return 200, {}, good(body, "[" * 100_000)


# trouble


def html_at_first(number: int, body: Mapping[str, Any]) -> Any:
    return (200, {}, "<html>Bad gateway</html>") if number <= 2 else (200, {}, good(body))


def error_in_choice(number: int, body: Mapping[str, Any]) -> Any:
    if number in (1, 3):
        made = good(body, "Sorry")
        made["choices"][0] |= {"finish_reason": "error", "error": {"code": 502, "message": "gone"}}
        return 200, {}, made
    return 200, {}, good(body)


def limit_in_200(number: int, body: Mapping[str, Any]) -> Any:
    if number in (1, 3):
        return 200, {}, {"error": {"message": "Rate limit exceeded: per-min.", "code": 429}}
    return 200, {}, good(body)


def throttled(status: int, body_of: Any) -> Behaviour:
    """Say of the first requests in words alone that there are too many."""
    return lambda number, body: (status, {}, body_of) if number in (1, 3) else (200, {}, good(body))


def storm(number: int, body: Mapping[str, Any]) -> Any:
    """Refuse seven of ten, with no word of when to come again."""
    return (200, {}, good(body)) if number % 10 < 3 else refused("slow down", 429)


def window(limit: int, seconds: float) -> Behaviour:
    """Take so many requests in so many seconds; the pause stands in the body, which is a list."""
    times: list[float] = []

    def behaviour(number: int, body: Mapping[str, Any]) -> Any:
        now = time.monotonic()
        times[:] = [one for one in times if now - one < seconds]
        if len(times) < limit:
            times.append(now)
            return 200, {}, good(body)
        wait = seconds - (now - times[0])
        message = f"You exceeded your current quota. Please retry in {wait:.2f}s."
        return 429, {}, [{"error": {"code": 429, "message": message}}]

    return behaviour


def no_money(status: int, message: str, **more: Any) -> Behaviour:
    return lambda number, body: refused(message, status, **more)


def no_money_in_200(number: int, body: Mapping[str, Any]) -> Any:
    return 200, {}, {"id": "x", "error": {"message": "Insufficient credits.", "code": 402}}
