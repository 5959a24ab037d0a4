"""One request after the other to an endpoint, each tried until it has a reply or has failed.

Retries are ours, not a library's, so that what the endpoint says (429, Retry-After) is seen by the
pace of all requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from generators.llm.api import Api
from generators.llm.chat_body import CHAT_PATH, chat_body
from generators.llm.endpoint import ResolvedEndpoint
from generators.llm.failures import (
    RequestFailed,
    Transient,
    endpoint_error,
    error_from_response,
    one_line,
    redact_secrets,
    retry_with_backoff,
)
from generators.llm.http_line import Answer, HttpLines, NoAnswer
from generators.llm.rate_limiter import AdaptiveRateLimiter, retry_after_s
from generators.llm.request import Attempt, Form, Outcome, Request, read_reply
from generators.llm.structured import FORMS, PROBE, PROBE_REPLY, extract_json, with_schema_prompt

_CONNECT_S = 10.0
_OVERLOADED = (429, 503, 529)
_KEPT_HEADERS = ("retry-after", "retry-after-ms", "x-request-id", "openai-processing-ms")
_KEPT_PREFIX = "x-ratelimit-"
_FORM_WORDS: Mapping[Form, tuple[str, str]] = {
    "schema": ("with a JSON schema", "ignores JSON schemas"),
    "json": ("in JSON mode", "does not follow JSON mode"),
    "prompt": ("with a schema in its prompt", "does not follow a schema in its prompt"),
}


class Reply(NamedTuple):
    """A chat completion that came.

    Attributes:
        raw: the HTTP body.
        attempt: what brought it.
        outcome: what the body says, as far as `read_reply` reads it.
    """

    raw: str
    attempt: Attempt
    outcome: Outcome


class RequestSender:
    """Sends requests to one endpoint.

    Args:
        endpoint: the endpoint.
        pace: lets each attempt through, and learns from it.
        note: told of every attempt that brought no reply.
        api: the rest of the endpoint's API.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        pace: AdaptiveRateLimiter,
        note: Callable[[Attempt], None],
        api: Api,
    ) -> None:
        self.endpoint = endpoint
        self._pace = pace
        self._note = note
        self._api = api
        self._lines: HttpLines | None = None
        if not endpoint.proxied:
            self._lines = HttpLines(
                endpoint.base_url + CHAT_PATH, api.headers(), connect_s=_CONNECT_S, tls=api.tls
            )

    async def close(self) -> None:
        """Close connections."""
        if self._lines is not None:
            self._lines.close()

    async def send(self, request: Request, key: str) -> Reply:
        """The reply to `request`.

        Raises:
            RequestFailed: no chat completion came back within the retries.
            EndpointError: nothing will come back from this endpoint.
        """
        try:
            return await retry_with_backoff(
                lambda: self._paced(request, key),
                lambda tried, trouble: tried > self.endpoint.retries,
                self.endpoint.backoff_s,
            )
        except Transient as trouble:
            if trouble.kind == "gone":
                raise endpoint_error(
                    self.endpoint,
                    "cannot be reached any more",
                    "Finished replies are kept; start the server again and run again.",
                    transient=True,
                ) from trouble
            raise RequestFailed(str(trouble)) from trouble

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
        raise endpoint_error(self.endpoint, said or "", do)

    async def _misfit(self, form: Form) -> str | None:
        """What shows that the endpoint does not follow `form`, in words; None if it does."""
        wanted, ignored = _FORM_WORDS[form]
        request = with_schema_prompt(PROBE, form)
        key = request.key(self.endpoint.identity)
        try:
            reply = await retry_with_backoff(
                lambda: self._attempt(request, key, self.endpoint.probe_timeout_s),
                _probed_enough,
                self.endpoint.backoff_s,
            )
        except RequestFailed as error:
            return f"refused a request {wanted} ({error})"
        except Transient as trouble:
            raise endpoint_error(
                self.endpoint,
                f"gave no usable reply to a trial request ({trouble})",
                "Check generate.endpoint.base_url (it usually ends with /v1) and that the server "
                "runs.",
                transient=True,
            ) from trouble
        self._note(reply.attempt)
        content = extract_json(reply.outcome, form).content.strip()
        try:
            fits = json.loads(content) == PROBE_REPLY
        except ValueError:
            fits = False
        return (
            None if fits else f"{ignored}: expected {json.dumps(PROBE_REPLY)}, got {content[:60]!r}"
        )

    async def _paced(self, request: Request, key: str) -> Reply:
        expected = sum(request.most_tokens)
        spare = expected
        sent = await self._pace.enter(expected)
        try:
            reply = await self._attempt(request, key, self.endpoint.timeout_s, sent)
            tokens = reply.outcome.prompt_tokens + reply.outcome.completion_tokens
            spare -= tokens
            self._pace.replied(reply.attempt.seconds, tokens)
            return reply
        finally:
            self._pace.leave(spare)

    async def _attempt(
        self, request: Request, key: str, timeout_s: float, sent: float | None = None
    ) -> Reply:
        start = time.monotonic()
        answer: Answer | None = None
        trouble: Exception
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._post(request)
        except TimeoutError:
            trouble = Transient(f"no reply within {timeout_s:g} s", kind="silent")
        except NoAnswer as error:
            said = one_line(redact_secrets(self.endpoint, f"no connection: {error}"))
            trouble = Transient(said, kind="gone" if error.gone else "answered")
        if answer is not None:
            self._pace.told(answer.headers)
            raw = redact_secrets(self.endpoint, answer.body.decode(errors="replace"))
            outcome = read_reply(key, raw) if answer.status == 200 else None
            if outcome is not None:
                attempt = Attempt(
                    key=key,
                    status=answer.status,
                    seconds=time.monotonic() - start,
                    headers=self._kept(answer.headers),
                    prompt_tokens=outcome.prompt_tokens,
                    completion_tokens=outcome.completion_tokens,
                    cost=self.endpoint.cost(outcome.prompt_tokens, outcome.completion_tokens),
                )
                return Reply(raw, attempt, outcome)
            trouble = await self._trouble(answer, raw)
            if answer.status in _OVERLOADED:
                self._pace.limited(start if sent is None else sent, retry_after_s(answer.headers))
        self._note(
            Attempt(
                key=key,
                status=None if answer is None else answer.status,
                seconds=time.monotonic() - start,
                detail=str(trouble),
                headers={} if answer is None else self._kept(answer.headers),
            )
        )
        # what the endpoint said is in the line already; a traceback of it could show more
        raise trouble

    async def _post(self, request: Request) -> Answer:
        body = chat_body(request, self.endpoint)
        if self._lines is None:
            return await self._api.post(CHAT_PATH, body)
        return await self._lines.post(body)

    async def _trouble(self, answer: Answer, raw: str) -> Exception:
        if 300 <= answer.status < 400:
            where = one_line(redact_secrets(self.endpoint, answer.headers.get("location", "")))
            return endpoint_error(
                self.endpoint,
                f"sends elsewhere (HTTP {answer.status}), to {where!r}",
                "Set generate.endpoint.base_url to where it really is.",
            )
        if answer.status < 400:
            return Transient(f"the reply is no chat completion: {one_line(raw)[:80]!r}")
        offered = ""
        if answer.status == 404:
            names = await self._api.models()
            offered = f"; it offers {', '.join(names[:8])}" if names else ""
        return error_from_response(self.endpoint, answer.status, answer.headers, raw, offered)

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Those headers that tell about limits and the request's number, and nothing of the key."""
        return {
            name: redact_secrets(self.endpoint, value)
            for name, value in headers.items()
            if name in _KEPT_HEADERS or name.startswith(_KEPT_PREFIX)
        }


def _probed_enough(tried: int, trouble: Transient) -> bool:
    """A busy endpoint is tried again; one that stays silent once, one that is not there never."""
    return tried >= {"answered": 3, "silent": 2, "gone": 1}[trouble.kind]
