"""Read completions as the servers of many providers write them.

| what differs | how it is read |
|---|---|
| content as a list of parts | parts of text are joined, parts of thought left out |
| the JSON as arguments of a tool, with no content | as its text |
| content as the JSON object that was asked for | as its text |
| thought beside the content | kept apart, to tell a reply that was cut within its thought |
| finish reasons of Gemini, Anthropic, Mistral | as the status that they stand for |
| no message, or no choice, with a filter's reason | filtered |
| several choices | the first with a text, else the first |
| no usage, or numbers that are none | unknown: the most it can have been counts |

Bodies in the native form of another API, and streams, are put into OpenAI's form before.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.documents.strict_json import fits_utf8
from core.text.thoughts import after_thought, ends_within_thought, is_thought_alone
from generators.llm.chat.reply_body import is_stream, parse_body
from generators.llm.endpoint.prices import NO_TOKENS, TokenCounts

Status = Literal["answer", "empty", "cut_off", "refusal", "filtered", "failed"]

_CUT_OFF = re.compile(r"length|max_.*tokens|context_window|token_limit")
_FILTERED = re.compile(
    r"filter|safety|recitation|block|prohibited|spii|guardrail|sensitive|toxic|moderation|armor"
    r"|policy"
)
_REFUSED = re.compile(r"refus")
_FAILED = re.compile(r"error(?!_toxic)|abort|cancel|insufficient_system_resource|time_?out")
"""What words of finish reasons stand for: those of OpenAI, Gemini, Anthropic, Mistral, Cohere,
DeepSeek, GLM, vLLM and others."""
_MESSAGES = ("message", "detail", "msg", "error_msg")
"""Names of an error's text in a body that is no more than the error."""
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
_NO_TEXT = "the reply has no text"
_MOST_TOKENS = 10**9
"""More tokens than this no request has: the number is a fault of the server's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The end of a request: an answer, or why there is none.

    Only status `answer` carries content to read. `failed` means that no reply came within the
    retries: it is asked again by the next run, all else is final.

    Attributes:
        key: the request's key.
        content: text of the reply, thought left out.
        detail: why there is no answer, in words.
        token_ids: tokens of the reply, where token ids were continued and the endpoint tells them.
        tokens: what the request took.
        estimated: the endpoint did not count the tokens; they are the most that it can have been.
        cached: the reply was in the log already.
        batched: the reply came in a batch.
        paid: US dollars that a reply out of the log cost; None where the price was not known then.
    """

    key: str
    status: Status
    content: str = ""
    detail: str = ""
    token_ids: tuple[int, ...] | None = None
    tokens: TokenCounts = NO_TOKENS
    estimated: bool = field(default=False, compare=False)
    cached: bool = field(default=False, compare=False)
    batched: bool = field(default=False, compare=False)
    paid: float | None = field(default=None, compare=False)

    @classmethod
    def lost(cls, key: str, tokens: TokenCounts, paid: float | None) -> Outcome:
        """Make the outcome of what an earlier run can have paid for without a usable reply."""
        return cls(key=key, status="failed", tokens=tokens, estimated=True, cached=True, paid=paid)


def read_reply(
    key: str, raw: str, *, most: TokenCounts, cached: bool = False, batched: bool = False
) -> Outcome | None:
    """Read the HTTP body `raw`.

    Args:
        key: the request's key.
        raw: the body.
        most: tokens that the request can have taken, for bodies that do not count them.
        cached: the body was in the log already.
        batched: it came in a batch.

    Returns:
        the outcome; None if the body is no chat completion at all, or says that the server failed.
    """
    body = parse_body(raw)
    if body is None:
        return None
    tokens = _usage(body)
    read = _read_choice(body)
    if read is None:
        return None
    status, content, detail = read
    return Outcome(
        key=key,
        status=status,
        content=content,
        detail=detail,
        token_ids=_token_ids(body),
        tokens=tokens or most,
        estimated=tokens is None,
        cached=cached,
        batched=batched,
    )


def paid_tokens(raw: str, most: TokenCounts) -> TokenCounts | None:
    """Tell what a body without a reply in it can have cost: JSON or a stream, whole or not.

    Args:
        raw: the body.
        most: tokens that the request can have taken, for bodies that do not count them.

    Returns:
        The tokens; None for an error, and for a page or a text in place of a reply.
    """
    body = parse_body(raw)
    if body is not None:
        return _usage(body) or (most if body_error(body) is None else None)
    begins_as_json = raw.lstrip().startswith(("{", "["))
    return most if begins_as_json or is_stream(raw) or raw.startswith("\x1f") else None


def body_error(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find the error object that some servers put into a response of HTTP 200."""
    choice = _choice(body)
    detail = body.get("detail")
    places = (body, *(one for one in (choice, detail) if isinstance(one, dict)))
    for place in places:
        errors = place.get("errors")
        error = place.get("error") or (errors[0] if isinstance(errors, list) and errors else None)
        while isinstance(error, dict) and isinstance(inner := error.get("error"), dict):
            error = inner
        if isinstance(error, str) and error:
            return {"message": error}
        if isinstance(error, dict) and error:
            return error
    own = body.get("base_resp")  # MiniMax's
    if isinstance(own, dict) and own.get("status_code"):
        return {"code": own["status_code"], "message": str(own.get("status_msg"))}
    if choice is not None and _FAILED.search(_word(choice.get("finish_reason"))):
        return {"message": "the server ended the reply with an error"}
    if "choices" not in body:
        message = next((body[name] for name in _MESSAGES if isinstance(body.get(name), str)), None)
        return None if message is None else {**body, "message": message}
    return None


def without_lone_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs, which no UTF-8 can hold."""
    return (
        text
        if fits_utf8(text)
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def _read_choice(body: Mapping[str, Any]) -> tuple[Status, str, str] | None:
    """Read (status, content, detail) of the first choice; None where there is none."""
    if body_error(body) is not None:
        return None
    choice = _choice(body)
    if choice is None:
        if _prompt_was_blocked(body):
            return "filtered", "", "the endpoint's content filter refused the prompt"
        return None
    finish = " ".join(_word(choice.get(f"{own}finish_reason")) for own in ("", "native_"))
    message = choice.get("message", choice.get("delta"))
    if _FILTERED.search(finish):
        return "filtered", "", "the endpoint's content filter held the reply back"
    if not isinstance(message, dict):
        text = choice.get("text")  # what follows token ids, thought and all
        if not isinstance(text, str):
            return None
        return "cut_off" if _CUT_OFF.search(finish) else "answer", without_lone_surrogates(text), ""
    content, thought = _texts(message.get("content"))
    if content is None:
        return None
    content = content or _called_with(message)
    thought = thought or any(message.get(name) for name in _THOUGHT_FIELDS)
    refusal = message.get("refusal") or _refusal_part(message.get("content"))
    if refusal or _REFUSED.search(finish):
        said = refusal if isinstance(refusal, str) else content
        return "refusal", content, without_lone_surrogates(said) or "the model declined"
    if _CUT_OFF.search(finish):
        return "cut_off", content, _cut_words(content)
    return _without_thought(content, thought)


def _choice(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the reply among the choices: the first with a text, else the first; None without."""
    choices = body.get("choices")
    found = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    found.sort(key=lambda one: one["index"] if type(one.get("index")) is int else 0)
    return next((one for one in found if _has_text(one)), found[0] if found else None)


def _has_text(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message")
    if not isinstance(message, dict):
        return bool(choice.get("text"))
    content, _ = _texts(message.get("content"))
    return bool(content or _called_with(message))


def _without_thought(content: str, thought: bool) -> tuple[Status, str, str]:
    """Read (status, content, detail) of a reply that ended; `thought` says that one stood apart."""
    if is_thought_alone(content):
        content, thought = "", True
    elif not content.lstrip().startswith("{"):  # a JSON answer may tell of such marks
        answer = after_thought(content)
        content = content if answer is None else answer
    if not content.strip():
        return "empty", content, "the reply has a thought and no text" if thought else _NO_TEXT
    return "answer", content, ""


def _cut_words(content: str) -> str:
    """Say where a reply was cut off: within its thought, seen or not, or within the answer."""
    if ends_within_thought(content) or not content.strip():
        return (
            "the reply was cut within its thought, before any answer; give it room with "
            "generate.endpoint.thinking_tokens"
        )
    return "the reply reached max_tokens"


def _texts(content: Any) -> tuple[str | None, bool]:
    """Join the parts of text of a message's content; say whether there are parts of thought."""
    if content is None:
        return "", False
    if isinstance(content, str):
        return without_lone_surrogates(content), False
    if isinstance(content, dict):
        text = _part_text(content)
        if content.get("type") != "text" or text is None:
            text = json.dumps(content, ensure_ascii=False)
        return without_lone_surrogates(text), False
    if not isinstance(content, list):
        return None, False
    found: list[str] = []
    thought = False
    for part in content:
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict):
            kind, text = part.get("type", "text"), _part_text(part)
            if kind in ("text", "output_text") and text is not None:
                found.append(text)
            thought = thought or kind not in ("text", "output_text")
    return without_lone_surrogates("".join(found)), thought


def _part_text(part: Mapping[str, Any]) -> str | None:
    text = part.get("text")
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else None


def _called_with(message: Mapping[str, Any]) -> str:
    """Return the arguments of the only call of a tool: some gateways ask for JSON in that way."""
    calls = message.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and len(calls) == 1 else None
    function = call.get("function") if isinstance(call, dict) else message.get("function_call")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return without_lone_surrogates(arguments) if isinstance(arguments, str) else ""


def _refusal_part(content: Any) -> str | None:
    """Return what a part of kind `refusal` says."""
    for part in content if isinstance(content, list) else ():
        said = part.get("refusal") if isinstance(part, dict) else None
        if isinstance(said, str):
            return said
    return None


def _prompt_was_blocked(body: Mapping[str, Any]) -> bool:
    feedback = body.get("promptFeedback") or body.get("prompt_feedback")
    if isinstance(feedback, dict) and (feedback.get("blockReason") or feedback.get("block_reason")):
        return True
    results = body.get("prompt_filter_results")  # Azure's, which come with every reply
    return '"filtered": true' in json.dumps(results)


def _usage(body: Mapping[str, Any]) -> TokenCounts | None:
    """Read the tokens that the server counted; None where it did not, or counted nonsense."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    names = (("prompt", "input"), ("completion", "output"))  # Anthropic's are the second
    prompt, completion = (
        _count(usage.get(f"{one}_tokens", usage.get(f"{other}_tokens"))) for one, other in names
    )
    total = _count(usage.get("total_tokens"))
    if prompt is None or (completion is None and total is None):
        return None
    if "prompt_tokens" not in usage:  # Anthropic counts what its cache had, or took, apart
        apart = (usage.get(f"cache_{what}_input_tokens") for what in ("read", "creation"))
        prompt += sum(_count(one) or 0 for one in apart)
    # some count thought in the total alone, and leave out a reply of no other token
    completion = max(completion or 0, (total or 0) - prompt)
    if prompt + completion == 0:
        return None
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    for name in ("prompt_cache_hit_tokens", "cache_read_input_tokens"):
        cached = usage.get(name) if cached is None else cached
    return TokenCounts(prompt=prompt, completion=completion, cached=_count(cached) or 0)


def _count(value: Any) -> int | None:
    """Read a number of tokens; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= _MOST_TOKENS else None


def _token_ids(body: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Read the token ids of the first choice, as vLLM or, with `logprobs`, llama.cpp tells them."""
    choice = _choice(body) or {}
    ids, logprobs = choice.get("token_ids"), choice.get("logprobs")
    told = logprobs.get("content") if isinstance(logprobs, dict) else None
    if ids is None and isinstance(told, list) and told:
        ids = [one.get("id") if isinstance(one, dict) else None for one in told]
    if not isinstance(ids, list) or not all(type(one) is int for one in ids):
        return None
    return tuple(ids)


def _word(reason: Any) -> str:
    return reason.strip().lower() if isinstance(reason, str) else ""
