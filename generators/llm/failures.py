"""What goes wrong between an endpoint and us, and what of it a later attempt may mend.

| what came | what it is |
|---|---|
| 408, 409, 429, 5xx, a time-out, a broken reply | `Transient`: tried again |
| another 4xx | `RequestFailed`: this request gets no reply, others may |
| 401, 403, 404, no credit, nobody there | `EndpointError`: nothing more will come, the run ends |

No text made here holds the key, not even where the endpoint repeats it.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, TypeVar

from core.errors import EndpointError
from generators.llm.endpoint import ResolvedEndpoint
from generators.llm.rate_limiter import LONGEST_PAUSE_S, retry_after_s

T = TypeVar("T")

_LONGEST_SAID = 160
"""Characters of an endpoint's own words that are repeated."""


class RequestFailed(Exception):
    """One request got no reply within its retries; `filtered` if a filter refused its input."""

    def __init__(self, detail: str, *, filtered: bool = False) -> None:
        super().__init__(detail)
        self.filtered = filtered


class Transient(Exception):
    """A later attempt may go better.

    Attributes:
        wait_s: pause that the endpoint named, in seconds.
        kind: whether it answered at all, or was not even there.
    """

    def __init__(
        self,
        detail: str,
        wait_s: float | None = None,
        *,
        kind: Literal["answered", "silent", "gone"] = "answered",
    ) -> None:
        super().__init__(detail)
        self.wait_s = wait_s
        self.kind = kind


async def retry_with_backoff(
    attempt: Callable[[], Awaitable[T]],
    enough: Callable[[int, Transient], bool],
    backoff_s: float,
) -> T:
    """Result of the first attempt that is not `Transient`.

    Args:
        attempt: makes one.
        enough: given the number of attempts so far and the last trouble, whether to give up.
        backoff_s: wait before the second, in seconds; it doubles from there, unless a pause is
            named.

    Raises:
        Transient: the last trouble.
    """
    tried = 0
    while True:
        try:
            return await attempt()
        except Transient as trouble:
            tried += 1
            if enough(tried, trouble):
                raise
            wait = _wait_s(tried, trouble, backoff_s)
        await asyncio.sleep(wait)


def _wait_s(tried: int, trouble: Transient, backoff_s: float) -> float:
    if trouble.wait_s is None:
        growing = min(backoff_s * 2 ** (tried - 1), LONGEST_PAUSE_S)
        return growing * random.uniform(0.75, 1.25)
    # those who were told the same time would all come back at once
    return min(trouble.wait_s, LONGEST_PAUSE_S) + random.uniform(0, backoff_s)


def error_from_response(
    endpoint: ResolvedEndpoint,
    status: int,
    headers: Mapping[str, str],
    body: str,
    offered: str = "",
) -> Exception:
    """What the HTTP status of a response means, as the exception to raise.

    Args:
        endpoint: who answered.
        status: 400 or higher.
        headers: of the response, names in lower case.
        body: of the response.
        offered: what the endpoint has instead of what was not found.
    """
    # the servers' own text is not repeated for 401 and 403: some echo a part of the key
    if status in (401, 403):
        return endpoint_error(
            endpoint,
            f"refuses the key (HTTP {status})",
            "Check the environment variable that generate.endpoint.api_key_env names.",
        )
    words, code = _said(body)
    said = one_line(redact_secrets(endpoint, words))[:_LONGEST_SAID]
    if status == 404:
        return endpoint_error(
            endpoint,
            f"has no model {endpoint.model!r}, or no chat completions (HTTP 404){offered}",
            "Check generate.endpoint.model and base_url (it usually ends with /v1).",
        )
    if status == 429 and code == "insufficient_quota":
        return endpoint_error(
            endpoint, "has no credit left (HTTP 429)", "Top up the account and run again."
        )
    if status in (408, 409, 429) or status >= 500:
        return Transient(f"HTTP {status}: {said}", retry_after_s(headers))
    return RequestFailed(
        f"HTTP {status}: {said}", filtered=code in ("content_filter", "content_policy")
    )


def endpoint_error(
    endpoint: ResolvedEndpoint, what: str, do: str, *, transient: bool = False
) -> EndpointError:
    """The error that ends a run: what the endpoint does, and what the user can do."""
    return EndpointError(
        f"endpoint {endpoint.address} (model {endpoint.model!r}) {what}. {do}", transient=transient
    )


def redact_secrets(endpoint: ResolvedEndpoint, text: str) -> str:
    """`text` with the key struck out."""
    key = endpoint.api_key
    return text.replace(key, "[key]") if len(key) > 4 and key in text else text


def one_line(text: str) -> str:
    """`text` with every run of white space as one blank."""
    return " ".join(text.split())


def _said(body: str) -> tuple[str, str | None]:
    """What an error's body says, and its code, as far as it is of the usual form."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"]), error.get("code")
    except (ValueError, TypeError, KeyError, AttributeError):
        return body, None
