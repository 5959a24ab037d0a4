"""Errors of an endpoint, sorted by whether a later attempt may succeed.

| what came | what it is |
|---|---|
| 429, 498, 503, 529, or words for it | `TransientError` of kind `overloaded`: all requests wait |
| 408, 409, 5xx, a time-out, a broken reply | `TransientError`: sent again |
| another 4xx | `RequestFailed`: this request gets no reply, others may |
| 401, 403, 404, 405, a 400 about key or model, no server | `EndpointError`: the run ends |
| no credit, however it is said | `NoCreditError`, at once |

An error object in a response of HTTP 200 counts with its own code. No text made here holds the key,
not even where the endpoint repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

from core.errors import EndpointError, NoCreditError
from generators.llm.chat.reply import body_error
from generators.llm.chat.reply_body import is_stream, parse_body
from generators.llm.endpoint.resolve import CHAT_PATH, ResolvedEndpoint, redact_secrets

T = TypeVar("T")

LONGEST_PAUSE_S = 300.0
"""Longest pause that is waited for, in seconds: an endpoint that asks for more ends the run."""
_LONGEST_BACKOFF_S = 30.0
_SHOWN_CHARACTERS = 160
"""Characters of an endpoint's own words that are repeated."""
OVERLOADED = (429, 498, 503, 529)
_TRANSIENT = (408, 409, 425, 429)
FailureKind = Literal["overloaded", "answered", "silent", "unreachable"]

_NO_CREDIT_CODES = {
    "insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "arrearage",
    "insufficient_balance", "insufficient_credits", "insufficient_funds", "payment_required",
}  # fmt: skip
_NO_CREDIT = re.compile(
    r"(?:insufficient|not enough|(?:no|any)(?: more| remaining)?|out of|ran out of|run out of"
    r"|low on|exhausted|add(?: more)?|top up|recharge|requires more)\s+"
    r"(?:(?:your|account|prepaid|available)\s+)*"
    r"(?:balance|credit|fund|money)"
    r"|(?:balance|credits?(?: balance)?|funds) (?:is|are) "
    r"(?:too low|exhausted|used up|depleted|insufficient)"
    r"|(?:exceeded|used|spent)\b[^.]{0,40}\bcredits|unpaid|free tier\b[^.]{0,40}\bexhausted"
    r"|check your (?:plan and )?billing|billing (?:is )?not active|hard limit|payment required"
    r"|account is (?:not active|in arrears|overdue)|spend(?:ing)?[ _](?:limit|cap)"
    r"|usage limits?\b.{0,80}regain|account \S+ is suspended|insufficient[_ ](?:\w+[_ ])?quota"
    r"|please recharge|key limit exceeded|余额不足|额度(?:不足|已用)|欠费|充值",
    re.IGNORECASE,
)
_FILTER_WORDS = re.compile(
    r"content[_ ]?(?:filter|policy|management)|responsibleai|moderation|was flagged|flagged_input"
    r"|data_inspection|safety (?:system|filter|policy)|usage polic|content exists risk"
    r"|(?:inappropriate|sensitive) content|敏感|不安全",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(
    r"(?:api|access)[ _-]?key[^.]{0,20}(?:not valid|invalid|incorrect|not found|expired|revoked)"
    r"|(?:invalid|incorrect|expired|revoked|missing|no)(?: \w+)? (?:x-)?api[ _-]?key"
    r"|api_key_invalid|no connected db",  # the last is LiteLLM's, for any but its master key
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"\b(?:no such|unknown|invalid) model(?: (?:name|id|specified|passed)|[\s:]*['\"`]|:|\.?$)"
    r"|\bmodel(?: \S{1,160})? (?:(?:(?:does|was|is) )?not (?:exist|found)|is unknown)"
    r"|not a valid model|pinned to .{0,160}requested",
    re.IGNORECASE,
)
"""What some say with HTTP 400 or 422 in place of 404."""
_KEY_WORDS = re.compile(
    r"key|\btoken\b(?! (?:quota|limit))|credential|authori[sz]ation|authenticat", re.IGNORECASE
)
"""Words of a text that may repeat a part of the key."""
_HAS_ENOUGH = re.compile(
    r"rate[_ -]?limit[_ -]?(?:\w*exceeded|reached|hit|error)|too[_ -]?many[_ -]?requests|throttl"
    r"|resource[_ ]exhausted|overloaded",
    re.IGNORECASE,
)
"""What some say with HTTP 400, 403 or 500, or in a 200, in place of 429."""
_INVALID = re.compile(
    r"invalid[_ ](?:request|argument|param)|bad[_ ]?request|unsupported|context (?:length|window)",
    re.IGNORECASE,
)
_NEVER_TAKEN = re.compile(r"request too large|too many tokens in|\d validation errors?:", re.I)
"""What some say, with HTTP 429 or 500, of what they will always refuse."""
_FILLER = r"(?:\s+(?:again|your|this|the|request|in|after|for|at least|about|around|another))*"
_DELAY = re.compile(
    rf"(?:retry|try|wait|available|reset)\w*{_FILLER}[\"':= ]+"
    r"((?:\d+(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|[smhd])"
    r"(?![a-z])[\s,]*(?:and\s+)?)+)",
    re.IGNORECASE,
)
_DELAY_FIELD = re.compile(
    r"(?:retry[_ -]?after|estimated_time)(_?(?:ms|millis\w*))?(?:_?sec\w*)?"
    r"[\"']?\s*(?:[:=]|(?<=after)\s)\s*[\"']?(\d+(?:\.\d+)?)(?![\d.\w]|\s*(?:m|s|h|d)\w*\b)",
    re.IGNORECASE,
)
"""A pause as a number of its own."""
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"
)
_UNITS = {"milli": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""Seconds by what a unit's name begins with, the longer first."""


class RequestFailed(Exception):
    """One request got no reply within its retries; `filtered` if a filter refused its input."""

    def __init__(self, detail: str, *, filtered: bool = False) -> None:
        super().__init__(detail)
        self.filtered = filtered


class TransientError(Exception):
    """A later attempt may go better.

    Attributes:
        wait_s: pause that the endpoint named, in seconds.
        kind: whether it had enough, answered with something else, was silent, or not even there.
    """

    def __init__(
        self,
        detail: str,
        wait_s: float | None = None,
        *,
        kind: FailureKind = "answered",
    ) -> None:
        super().__init__(detail)
        self.wait_s = wait_s
        self.kind = kind


async def retry_with_backoff(
    attempt: Callable[[], Awaitable[T]],
    is_exhausted: Callable[[int, TransientError], bool],
    delay_s: Callable[[int, TransientError], float],
) -> T:
    """Return the result of the first attempt that raises no `TransientError`.

    Args:
        attempt: makes one.
        is_exhausted: given the number of attempts so far and the last error, whether to give up.
        delay_s: given the same, seconds before the next.

    Raises:
        TransientError: the last one.
    """
    tried = 0
    while True:
        try:
            return await attempt()
        except TransientError as error:
            tried += 1
            if is_exhausted(tried, error):
                raise
            wait = delay_s(tried, error)
        await asyncio.sleep(wait)


def backoff_delay_s(tried: int, error: TransientError, backoff_s: float) -> float:
    """Seconds before the next attempt: doubling from `backoff_s`, or the pause that was named."""
    if error.wait_s is None:
        growing = min(backoff_s * 2.0 ** min(tried - 1, 20), _LONGEST_BACKOFF_S)
        return growing * random.uniform(0.75, 1.25)
    # those who were told the same time would all come back at once
    return error.wait_s + random.uniform(0, backoff_s)


def error_from_response(
    endpoint: ResolvedEndpoint,
    status: int,
    headers: Mapping[str, str],
    raw: str,
    offered: str = "",
    path: str = CHAT_PATH,
) -> Exception:
    """Make the exception that a response without a chat completion stands for.

    Args:
        endpoint: who answered.
        status: HTTP status.
        headers: of the response, names in lower case.
        raw: its body.
        offered: what the endpoint has instead of what was not found.
        path: what was asked, as it is appended to the address.
    """
    error = _error_object(raw)
    if status < 400:
        if error is None and not _NO_CREDIT.search(raw):
            what = redact_secrets(endpoint, describe_body(raw))
            return TransientError(f"the reply is no chat completion: {what}")
        status = 402 if error is None else _status_of(error)
    words, codes = _words_and_codes(error, raw)
    said = one_line(redact_secrets(endpoint, words))[:_SHOWN_CHARACTERS]
    wait_s = retry_delay_s(headers, raw)
    if _has_no_credit(status, codes, words, wait_s):
        return NoCreditError(
            f"endpoint {endpoint.address} (model {endpoint.model!r}) says that there is no credit "
            f"left (HTTP {status}: {said}). Top up the account and run again; finished replies are "
            "kept."
        )
    if status in (400, 403, 422, 451) and _FILTER_WORDS.search(f"{words} {raw}"):
        return RequestFailed(f"HTTP {status}: {said}", filtered=True)
    has_enough = status in OVERLOADED or (
        status in (400, 403, 500) and bool(_HAS_ENOUGH.search(" ".join((words, *codes))))
    )
    if (status in (401, 403) and not has_enough) or (status == 400 and _BAD_KEY.search(words)):
        page = describe_body(raw) if raw.lstrip().startswith("<") else ""
        shown = redact_secrets(endpoint, page) if error is None else said
        return _access_error(endpoint, status, shown)
    is_missing = status in (404, 405) and "parameter" not in words
    if is_missing or lacks_model(status, raw):
        told = "" if error is None else f": {said}"
        other = f", or nothing at {path}" if is_missing else ""
        return endpoint_error(
            endpoint,
            f"has no model {endpoint.model!r}{other} (HTTP {status}{told}){offered}",
            "Check generate.endpoint.model and base_url (it usually ends with /v1).",
        )
    if has_enough and wait_s is not None and wait_s > LONGEST_PAUSE_S:
        return endpoint_error(
            endpoint,
            f"asks for a pause of {wait_s:,.0f} s (HTTP {status}: {said})",
            "Finished replies are kept; run again after it.",
            transient=True,
        )
    is_transient = has_enough or status in _TRANSIENT or (status >= 500 and status != 501)
    if is_transient and not _NEVER_TAKEN.search(words):
        kind: FailureKind = "overloaded" if has_enough else "answered"
        return TransientError(f"HTTP {status}: {said}", wait_s, kind=kind)
    return RequestFailed(f"HTTP {status}: {said}")


def lacks_model(status: int, raw: str) -> bool:
    """Tell whether a response says that there is no model of the name that was asked for."""
    words, codes = _words_and_codes(_error_object(raw), raw)
    found = status in (400, 422) and bool(_NO_MODEL.search(words))
    return found or "model_not_found" in codes


def _access_error(endpoint: ResolvedEndpoint, status: int, said: str) -> EndpointError:
    """Make the error of a refused key, or of what the account may not use (a country, a model)."""
    if status == 403 and said and not _KEY_WORDS.search(said):
        return endpoint_error(
            endpoint,
            f"refuses access (HTTP {status}: {said})",
            "Check what the account may use, and generate.endpoint.api_key_env.",
        )
    if not endpoint.has_key:
        return endpoint_error(
            endpoint,
            f"demands a key (HTTP {status})",
            "Export it, and name its environment variable in generate.endpoint.api_key_env.",
        )
    return endpoint_error(
        endpoint,
        f"refuses the key (HTTP {status})",
        "Check the environment variable that generate.endpoint.api_key_env names.",
    )


def endpoint_error(
    endpoint: ResolvedEndpoint, what: str, do: str, *, transient: bool = False
) -> EndpointError:
    """Make the error that ends a run: what the endpoint does, and what the user can do."""
    return EndpointError(
        f"endpoint {endpoint.address} (model {endpoint.model!r}) {what}. {do}", transient=transient
    )


def one_line(text: str) -> str:
    """Write every run of white space as one blank."""
    return " ".join(text.split())


def describe_body(raw: str) -> str:
    """Say what a body is that is no chat completion, and how it begins."""
    text = one_line(raw[:1000])
    start = raw.lstrip()[:1]
    if not text:
        return "an empty body"
    if start == "<":
        kind = "HTML"
    elif raw.startswith("\x1f") or raw.count("\ufffd") > len(raw) / 20:
        return "bytes that are no text (compressed, and not said to be?)"
    elif is_stream(raw):
        kind = "a stream of events without its end"
    elif start in ("{", "[") and parse_body(raw) is None:
        kind = "JSON that is cut or broken"
    elif start == "{":
        kind = "JSON without a reply in it"
    else:
        kind = "text"
    return f"{kind}, {text[:80]!r}"


def retry_delay_s(headers: Mapping[str, str], raw: str = "") -> float | None:
    """Find the pause that a response asks for, in seconds.

    `Retry-After` may be a number, a date, or in milliseconds; some name the pause in the body
    alone, as `retryDelay` or in words (`Please retry in 12.3s`).
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    if said is not None:
        if (seconds := _number(said)) is not None:
            return seconds
        with contextlib.suppress(ValueError):
            return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
        if re.match(r"\s*\d", said) and (length := _duration_s(said)) is not None:
            return length
    found = [
        seconds
        for match in _DELAY.finditer(raw[:10_000])
        if (seconds := _duration_s(match[1])) is not None
    ]
    found += [
        float(match[2]) / (1000 if match[1] else 1) for match in _DELAY_FIELD.finditer(raw[:10_000])
    ]
    return max(found, default=None)


def _duration_s(text: str) -> float | None:
    """Seconds of a duration such as `6m0s`, `20ms` or `12.5 seconds`."""
    parts = [
        float(number) * next(size for name, size in _UNITS.items() if unit.startswith(name))
        for number, unit in _PART.findall(text.lower())
    ]
    return sum(parts) if parts else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _error_object(raw: str) -> Mapping[str, Any] | None:
    """Find a body's error object, in an object or in a list of one."""
    text = raw.strip()
    if text.startswith("["):
        text = text[1:].rstrip("] \n")
    body = parse_body(text)
    return None if body is None else body_error(body)


def _has_no_credit(status: int, codes: set[str], words: str, wait_s: float | None) -> bool:
    if status == 402 or codes & _NO_CREDIT_CODES:
        return True
    # a quota that comes back after a pause is a limit on the rate
    said = " ".join((words, *codes))
    return status in (400, 401, 403, 412, 429) and wait_s is None and bool(_NO_CREDIT.search(said))


def _words_and_codes(error: Mapping[str, Any] | None, raw: str) -> tuple[str, set[str]]:
    """Read an error's message, or the body where it has none; and its codes, in lower case."""
    if error is None:
        return raw, set()
    message = error.get("message")
    codes = {str(error.get(name)).lower() for name in ("code", "type", "status") if error.get(name)}
    words = message if isinstance(message, str) and message else raw
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and isinstance(cause := metadata.get("raw"), str):
        # OpenRouter's: what the provider behind it said
        inner = _error_object(cause)
        words += f": {cause if inner is None else _words_and_codes(inner, cause)[0]}"
    return words, codes


def _status_of(error: Mapping[str, Any]) -> int:
    """HTTP status that the error object of a response of HTTP 200 stands for."""
    for name in ("code", "status", "status_code", "statusCode", "http_code"):
        code = error.get(name)
        if isinstance(code, str) and code.isdigit():
            code = int(code)
        if isinstance(code, int) and 400 <= code < 600:
            return code
    words = " ".join(str(error.get(name)) for name in ("code", "type", "status", "message")).lower()
    if _HAS_ENOUGH.search(words) or ("rate" in words and "limit" in words):
        return 429
    if _NO_CREDIT.search(words):
        return 402
    if _BAD_KEY.search(words):
        return 401
    return 400 if _FILTER_WORDS.search(words) or _INVALID.search(words) else 502
