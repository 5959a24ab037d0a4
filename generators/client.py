"""The OpenAI-compatible client: the only file that imports openai.

Retries are ours, not the library's, so that what the endpoint says (429, Retry-After) is seen here.
Two kinds of trouble are told apart: what a later attempt may mend (429, 5xx, a time-out, a broken
reply) is retried and then becomes the outcome `failed` of one request; what no attempt will mend
(wrong key, unknown model, no server) stops everything with an `EndpointError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2  # what openai is built on
import openai
import tenacity

from generators.endpoint import OPENAI_URL, ResolvedEndpoint
from generators.errors import EndpointError
from generators.llm_request import Attempt, Form, Request, read_reply
from generators.pace import LONGEST_PAUSE_S, Pace, retry_after_s
from generators.structured import FORMS, PROBE, PROBE_REPLY, dressed, response_format, undressed

_CONNECT_S = 10.0
_OVERLOADED = (429, 503, 529)
_KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "openai-processing-ms")
_KEPT_PREFIX = "x-ratelimit-"
_FORM_WORDS: Mapping[Form, tuple[str, str]] = {
    "schema": ("with a JSON schema", "ignores JSON schemas"),
    "json": ("in JSON mode", "does not follow JSON mode"),
    "prompt": ("with a schema in its prompt", "does not follow a schema in its prompt"),
}


class RequestFailed(Exception):
    """One request got no reply within its retries; `filtered` if a filter refused its input."""

    def __init__(self, detail: str, *, filtered: bool = False) -> None:
        super().__init__(detail)
        self.filtered = filtered


class _Transient(Exception):
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


class Client:
    """Sends requests to one endpoint.

    Args:
        endpoint: the endpoint.
        pace: lets each attempt through, and learns from it.
        note: told of every attempt that brought no reply.
    """

    def __init__(
        self, endpoint: ResolvedEndpoint, pace: Pace, note: Callable[[Attempt], None]
    ) -> None:
        self.endpoint = endpoint
        self._pace = pace
        self._note = note
        self._tls = httpx2.create_ssl_context()
        self._lines: list[openai.AsyncOpenAI] = []
        self._idle: list[openai.AsyncOpenAI] = []

    async def close(self) -> None:
        """Close connections."""
        for line in self._lines:
            await line.close()

    @contextlib.contextmanager
    def _line(self) -> Iterator[openai.AsyncOpenAI]:
        """A client that nothing else uses meanwhile.

        One for each request under way: a connection pool looks through all its connections for
        every request, which for some hundred costs more than all the rest.
        """
        if not self._idle:
            self._idle.append(
                openai.AsyncOpenAI(
                    base_url=self.endpoint.base_url,
                    api_key=self.endpoint.api_key,
                    max_retries=0,
                    timeout=httpx2.Timeout(self.endpoint.timeout_s, connect=_CONNECT_S),
                    http_client=openai.DefaultAsyncHttpxClient(
                        verify=self._tls,
                        # a proxy set for the outside world cannot reach this machine's own servers
                        trust_env=not _loopback(self.endpoint.base_url),
                    ),
                )
            )
            self._lines.append(self._idle[-1])
        line = self._idle.pop()
        try:
            yield line
        finally:
            self._idle.append(line)

    async def send(self, request: Request, key: str) -> tuple[str, Attempt]:
        """Raw body of the reply to `request`, and the attempt that brought it.

        Raises:
            RequestFailed: no chat completion came back within the retries.
            EndpointError: nothing will come back from this endpoint.
        """
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.endpoint.retries + 1),
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(_Transient),
            reraise=True,
        )
        try:
            return await retrying(self._paced, request, key)
        except _Transient as error:
            if error.kind == "gone":
                raise self._error(
                    "cannot be reached any more",
                    "Finished replies are kept; start the server again and run again.",
                ) from error
            raise RequestFailed(str(error)) from error

    async def find_form(self, first: Form, *, fall_back: bool) -> Form:
        """Send a small request, to see trouble, and how schemas are taken, before any work.

        Args:
            first: the form that is tried first.
            fall_back: whether the other forms are tried where the endpoint does not follow it.

        Returns:
            the form that the endpoint follows.

        Raises:
            EndpointError: unreachable, wrong key, model missing, no chat completions, or a server
                that ignores schemas; one line says which, where, and what to do.
        """
        forms = [first, *(form for form in FORMS if form != first)] if fall_back else [first]
        for form in forms:
            said = await self._misfit(form)
            if said is None:
                return form
        do = "Use a model that can write JSON."
        if not fall_back:
            do = (
                "Use a server that enforces response_format (llama.cpp, vLLM, a hosted API), or "
                "set generate.endpoint.structured: auto, which makes do without."
            )
        raise self._error(said or "", do)

    async def _misfit(self, form: Form) -> str | None:
        """What shows that the endpoint does not follow `form`, in words; None if it does."""
        wanted, ignored = _FORM_WORDS[form]
        request = dressed(PROBE, form)
        raw: str
        attempt: Attempt
        retrying = tenacity.AsyncRetrying(
            stop=_probed_enough,
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(_Transient),
            reraise=True,
        )
        key = request.key(self.endpoint.identity)
        try:
            raw, attempt = await retrying(
                self._attempt, request, key, self.endpoint.probe_timeout_s
            )
        except RequestFailed as error:
            return f"refused a request {wanted} ({error})"
        except _Transient as error:
            raise self._error(
                f"gave no usable reply to a trial request ({error})",
                "Check generate.endpoint.base_url (it usually ends with /v1) and that the server "
                "runs.",
            ) from error
        self._note(attempt)
        outcome = read_reply(key, raw)
        content = undressed(outcome, form).content.strip() if outcome else ""
        try:
            fits = json.loads(content) == PROBE_REPLY
        except ValueError:
            fits = False
        return (
            None if fits else f"{ignored}: expected {json.dumps(PROBE_REPLY)}, got {content[:60]!r}"
        )

    async def _paced(self, request: Request, key: str) -> tuple[str, Attempt]:
        expected = sum(request.most_tokens)
        spare = expected
        sent = await self._pace.enter(expected)
        try:
            raw, attempt = await self._attempt(request, key, self.endpoint.timeout_s, sent)
            tokens = attempt.prompt_tokens + attempt.completion_tokens
            spare -= tokens
            self._pace.replied(attempt.seconds, tokens)
            return raw, attempt
        finally:
            self._pace.leave(spare)

    async def _attempt(
        self, request: Request, key: str, timeout_s: float, sent: float | None = None
    ) -> tuple[str, Attempt]:
        start = time.monotonic()
        status: int | None = None
        headers: Mapping[str, str] = {}
        trouble: Exception
        try:
            # the library's time-out is one for each read; this one is for the whole reply
            async with asyncio.timeout(timeout_s):
                # not chat.completions.create: it checks every message against its types, which
                # takes longer than the request itself
                with self._line() as line:
                    reply = await line.post(
                        "/chat/completions", cast_to=httpx2.Response, body=self._body(request)
                    )
            status, headers, raw = reply.status_code, reply.headers, self._without_key(reply.text)
            outcome = read_reply(key, raw)
            if outcome is not None:
                self._pace.told(headers)
                return raw, Attempt(
                    key=key,
                    status=status,
                    seconds=time.monotonic() - start,
                    headers=self._kept(headers),
                    prompt_tokens=outcome.prompt_tokens,
                    completion_tokens=outcome.completion_tokens,
                    cost=self._cost(outcome.prompt_tokens, outcome.completion_tokens),
                )
            trouble = _Transient(f"the reply is no chat completion: {_one_line(raw)[:80]!r}")
        except (TimeoutError, openai.APITimeoutError):
            trouble = _Transient(f"no reply within {timeout_s:g} s", kind="silent")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            trouble = _Transient(
                _one_line(self._without_key(f"no connection: {cause}")),
                kind="gone" if isinstance(cause, httpx2.ConnectError) else "answered",
            )
        except openai.APIStatusError as error:
            status, headers = error.status_code, error.response.headers
            trouble = await self._status(error)
            self._pace.told(headers)
            if status in _OVERLOADED:
                self._pace.limited(start if sent is None else sent, retry_after_s(headers))
        self._note(
            Attempt(
                key=key,
                status=status,
                seconds=time.monotonic() - start,
                detail=str(trouble),
                headers=self._kept(headers),
            )
        )
        # what the endpoint said is in the line already; a traceback of it could show more
        raise trouble

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling.model_dump(exclude_none=True) | {"seed": request.seed}
        # OpenAI has renamed the field; the servers of others know the old name
        limit = "max_completion_tokens" if self.endpoint.base_url == OPENAI_URL else "max_tokens"
        return {
            "model": self.endpoint.model,
            "messages": [{"role": r, "content": c} for r, c in request.messages],
            limit: request.max_tokens,
            **response_format(request),
            **sampling,
        }

    async def _status(self, error: openai.APIStatusError) -> Exception:
        """What an HTTP status means, as the exception to raise."""
        status = error.status_code
        # the servers' own text is not repeated for 401 and 403: some echo a part of the key
        if status in (401, 403):
            return self._error(
                f"refuses the key (HTTP {status})",
                "Check the environment variable that generate.endpoint.api_key_env names.",
            )
        said = _one_line(self._without_key(error.message))[:160]
        if status == 404:
            return self._error(
                f"has no model {self.endpoint.model!r}, or no chat completions (HTTP 404)"
                + await self._offered(),
                "Check generate.endpoint.model and base_url (it usually ends with /v1).",
            )
        if status == 429 and error.code == "insufficient_quota":
            return self._error("has no credit left (HTTP 429)", "Top up the account and run again.")
        if status in (408, 409, 429) or status >= 500:
            return _Transient(f"HTTP {status}: {said}", retry_after_s(error.response.headers))
        return RequestFailed(
            f"HTTP {status}: {said}", filtered=error.code in ("content_filter", "content_policy")
        )

    async def _offered(self) -> str:
        try:
            async with asyncio.timeout(5):
                with self._line() as line:
                    names = [model.id for model in (await line.models.list()).data]
        except (TimeoutError, openai.OpenAIError, ValueError, TypeError):
            return ""  # only an addition to an error that is told anyway
        return f"; it offers {', '.join(names[:8])}" if names else ""

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        growing = self.endpoint.backoff_s * 2 ** (state.attempt_number - 1)
        jittered = min(growing, LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)
        said = error.wait_s if isinstance(error, _Transient) else None
        if said is None:
            return jittered
        # those who were told the same time would all come back at once
        return min(said, LONGEST_PAUSE_S) + random.uniform(0, self.endpoint.backoff_s)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        price = self.endpoint.price
        return None if price is None else price.of(prompt_tokens, completion_tokens)

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Those headers that tell about limits and the request's number, and nothing of the key."""
        return {
            name.lower(): self._without_key(value)
            for name, value in headers.items()
            if name.lower() in _KEPT_HEADERS or name.lower().startswith(_KEPT_PREFIX)
        }

    def _without_key(self, text: str) -> str:
        key = self.endpoint.api_key
        return text.replace(key, "[key]") if len(key) > 4 and key in text else text

    def _error(self, what: str, do: str) -> EndpointError:
        return EndpointError(
            f"endpoint {self.endpoint.address} (model {self.endpoint.model!r}) {what}. {do}"
        )


def _probed_enough(state: tenacity.RetryCallState) -> bool:
    """A busy endpoint is tried again; one that stays silent once, one that is not there never."""
    error = state.outcome.exception() if state.outcome else None
    kind = error.kind if isinstance(error, _Transient) else "answered"
    return state.attempt_number >= {"answered": 3, "silent": 2, "gone": 1}[kind]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
