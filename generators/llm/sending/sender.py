"""Send one request after the other to an endpoint, each until it has a reply or has failed.

Retries are ours, not a library's, so that what the endpoint says (429, Retry-After) is seen by the
rate limiter of all requests. A field of the body that the endpoint refuses is renamed or left out,
for all requests, and remembered in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from core.text.redact import redact
from generators.llm.chat.dialect import ChatDialect
from generators.llm.chat.failures import (
    RequestFailed,
    TransientError,
    backoff_delay_s,
    endpoint_error,
    error_from_response,
    lacks_model,
    one_line,
    retry_with_backoff,
)
from generators.llm.chat.reply import Outcome, paid_tokens, read_reply
from generators.llm.chat.request import Attempt, Request
from generators.llm.endpoint.prices import NO_TOKENS, TokenCounts
from generators.llm.endpoint.resolve import (
    CHAT_PATH,
    ResolvedEndpoint,
    redact_body,
    redact_secrets,
)
from generators.llm.log.request_log import KnownEndpoint, RequestLog
from generators.llm.sending.budget import Budget
from generators.llm.sending.openai_client import EndpointApi, HttpResponse, NoResponseError
from generators.llm.sending.rate_limiter import AdaptiveRateLimiter

_OVERLOAD_PATIENCE_S = 90.0
"""How long an endpoint may have enough of all requests: many count by the minute, and then some."""
_MOST_OVERLOADS = 30
"""Attempts of one request that meet an overloaded endpoint: others may get through all the time."""
_KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "openai-processing-ms")
_KEPT_PREFIX = "x-ratelimit-"


class ChatCompletion(NamedTuple):
    """A chat completion: the HTTP body, the attempt that brought it, and what the body says."""

    raw: str
    attempt: Attempt
    outcome: Outcome


class RequestSender:
    """Sends requests to one endpoint.

    Attributes:
        endpoint: the endpoint.
        log: keeps every attempt, and what was found out about the endpoint.
        api: the endpoint's API; close it in the end.
        budget: counts what is spent, on requests without a reply too.
        say: told a line where something is not as configured.
        dialect: the fields of a body that the endpoint was found to take.

    Args:
        limiter: lets each attempt through, and learns from it.

    The others are as above.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        limiter: AdaptiveRateLimiter,
        log: RequestLog,
        say: Callable[[str], None],
    ) -> None:
        self.endpoint = endpoint
        self.log = log
        self.api = EndpointApi(endpoint)
        self.budget = Budget(endpoint)
        self.say = say
        self._limiter = limiter
        self._has_replied = False
        known = [one for one in log.endpoints(endpoint.identity) if one.address == endpoint.address]
        self.dialect = (
            ChatDialect.from_json(known[0].dialect) if known else ChatDialect.of(endpoint)
        )
        # one that was settled stays where token ids are continued, which need none
        self._form = known[0].form if known else "tokens"

    async def send(self, request: Request, key: str) -> ChatCompletion:
        """Send `request` until it has a reply.

        Raises:
            RequestFailed: no chat completion came back within the retries.
            EndpointError: nothing will come back from this endpoint.
        """
        try:
            return await self._retried(request, key, self.endpoint.timeout_s, self._is_exhausted)
        except TransientError as error:
            if error.kind == "unreachable":
                raise endpoint_error(
                    self.endpoint,
                    f"cannot be reached any more ({error})",
                    "Finished replies are kept; start the server again and run again.",
                    transient=True,
                ) from error
            raise RequestFailed(str(error)) from error

    async def send_trial(self, request: Request, key: str) -> ChatCompletion:
        """Send a request on which no work depends, and so give it up sooner.

        Raises:
            RequestFailed: refused.
            TransientError: no chat completion came back.
            EndpointError: nothing will come back from this endpoint.
        """
        timeout_s = self.endpoint.probe_timeout_s
        return await self._retried(request, key, timeout_s, self._is_trial_exhausted)

    def remember(self, form: str) -> None:
        """Keep the form that the endpoint takes, and its dialect, for later runs."""
        self._form = form
        known = KnownEndpoint(self.endpoint.address, form, self.dialect.to_json())
        self.log.remember_endpoint(self.endpoint.identity, known)

    async def _retried(
        self,
        request: Request,
        key: str,
        timeout_s: float,
        is_exhausted: Callable[[int, TransientError], bool],
    ) -> ChatCompletion:
        return await retry_with_backoff(
            partial(self._adapted, request, key, timeout_s), is_exhausted, self._delay_s
        )

    def _delay_s(self, tried: int, error: TransientError) -> float:
        # while the endpoint has enough, the rate limiter holds all requests back
        if error.kind == "overloaded":
            return 0.0
        return backoff_delay_s(tried, error, self.endpoint.backoff_s)

    def _is_exhausted(self, tried: int, error: TransientError) -> bool:
        if error.kind == "unreachable" and not self._has_replied:
            return tried > min(1, self.endpoint.retries)  # nobody is there; no need to wait long
        if error.kind != "overloaded":
            return tried > self.endpoint.retries
        return tried > self.endpoint.retries and self._has_waited_enough(tried)

    def _is_trial_exhausted(self, tried: int, error: TransientError) -> bool:
        """Try a busy endpoint again, a silent one once, and one that is not there never."""
        if error.kind == "overloaded":
            return self._has_waited_enough(tried)
        return tried >= {"answered": 3, "silent": 2, "unreachable": 1}[error.kind]

    def _has_waited_enough(self, tried: int) -> bool:
        return (
            self.endpoint.retries == 0
            or tried > max(self.endpoint.retries, _MOST_OVERLOADS)
            or self._limiter.overloaded_s > _OVERLOAD_PATIENCE_S
        )

    async def _adapted(self, request: Request, key: str, timeout_s: float) -> ChatCompletion:
        """Attempt `request` in the endpoint's dialect, which it may only now be found to have."""
        used: set[ChatDialect] = set()
        while True:
            dialect = self.dialect
            used.add(dialect)
            body = dialect.body(request, self.endpoint)
            try:
                return await self._limited(request, key, body, timeout_s)
            except _RefusedError as error:
                if self.dialect == dialect:
                    adapted = dialect.adapted(body, error.raw)
                    if isinstance(error.failure, TransientError) and not (
                        adapted is not None and adapted.system_joined != dialect.system_joined
                    ):
                        adapted = None  # a server that fails may say anything of fields
                    if adapted is None or adapted in used:
                        raise error.failure from None
                    self.dialect = adapted
                    self.remember(self._form)
                    self.say(
                        f"generate.endpoint: {self.endpoint.model} "
                        f"{adapted.difference(dialect)} ({error.failure})."
                    )
                elif self.dialect in used:
                    raise error.failure from None

    async def _limited(
        self, request: Request, key: str, body: Mapping[str, Any], timeout_s: float
    ) -> ChatCompletion:
        most = request.max_usage(self.endpoint.thinking_tokens)
        expected = unused = most.prompt + most.completion
        sent_at = await self._limiter.acquire(expected)
        try:
            reply = await self._attempt(request, key, body, timeout_s)
            unused -= reply.outcome.tokens.prompt + reply.outcome.tokens.completion
            self._limiter.replied()
            self._has_replied = True
            return reply
        except TransientError as error:
            if error.kind == "overloaded":
                self._limiter.overloaded(sent_at, error.wait_s, self.endpoint.backoff_s)
            elif error.kind == "silent":
                self._limiter.reduce(sent_at)
            raise
        finally:
            self._limiter.release(unused)

    async def _attempt(
        self, request: Request, key: str, body: Mapping[str, Any], timeout_s: float
    ) -> ChatCompletion:
        start = time.monotonic()
        most = request.max_usage(self.endpoint.thinking_tokens)
        response: HttpResponse | None = None
        failure: Exception
        try:
            response = await self.api.complete(body, timeout_s)
        except asyncio.CancelledError:  # the run ends, and what is under way is paid for
            self.log.note(self._made(key, start, None, most, "given up while it was under way"))
            raise
        except TimeoutError:
            failure = TransientError(f"no whole reply within {timeout_s:g} s", kind="silent")
        except NoResponseError as error:
            said = one_line(redact(redact_secrets(self.endpoint, f"no connection: {error}")))
            failure = TransientError(said, kind="unreachable" if error.unreachable else "answered")
        else:
            raw = redact_body(self.endpoint, response.body.decode("utf-8-sig", errors="replace"))
            outcome = read_reply(key, raw, most=most) if response.status == 200 else None
            if outcome is not None:
                attempt = self._made(key, start, response, outcome.tokens)
                return ChatCompletion(raw, attempt, outcome)
            failure = await self._failure(response, raw, request)
        was_sent = not (isinstance(failure, TransientError) and failure.kind == "unreachable")
        lost = most if response is None and was_sent else None
        if response is not None and response.status == 200:
            lost = paid_tokens(raw, most)
        self.log.note(self._made(key, start, response, lost, str(failure)))
        if lost is not None:
            self.budget.count_lost(lost)
        # what the endpoint said is in the line already; a traceback of it could show more
        raise failure from None

    def _made(
        self,
        key: str,
        start: float,
        response: HttpResponse | None,
        tokens: TokenCounts | None,
        detail: str = "",
    ) -> Attempt:
        """Describe an attempt that ends now; `tokens` are those that it took, or can have taken."""
        return Attempt(
            key=key,
            status=None if response is None else response.status,
            seconds=time.monotonic() - start,
            detail=detail,
            headers={} if response is None else self._kept(response.headers),
            tokens=tokens or NO_TOKENS,
            cost=None if tokens is None else self.endpoint.cost(tokens),
        )

    async def _failure(self, response: HttpResponse, raw: str, request: Request) -> Exception:
        if 300 <= response.status < 400:
            said = redact(response.headers.get("location", ""))
            where = one_line(redact_secrets(self.endpoint, said))
            return endpoint_error(
                self.endpoint,
                f"sends elsewhere (HTTP {response.status}), to {where!r}",
                "Set generate.endpoint.base_url to where it really is.",
            )
        offered = ""
        if response.status == 404 or lacks_model(response.status, raw):
            names = await self.api.models()
            offered = f"; it offers {', '.join(names[:8])}" if names else ""
        path = "/completions" if request.prompt_ids else CHAT_PATH
        failure = error_from_response(
            self.endpoint, response.status, response.headers, raw, offered, path
        )
        # some servers (llama.cpp) answer what a chat template refuses with HTTP 500
        may_adapt = isinstance(failure, RequestFailed) or response.status == 500
        return _RefusedError(failure, raw) if may_adapt else failure

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Select headers about limits and the request's number, without secrets."""
        return {
            name: redact_secrets(self.endpoint, value)
            for name, value in headers.items()
            if name in _KEPT_HEADERS or name.startswith(_KEPT_PREFIX)
        }


class _RefusedError(Exception):
    """A request that was refused, perhaps for a field: the error that it is, and the response."""

    def __init__(self, failure: Exception, raw: str) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.raw = raw
