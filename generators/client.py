"""The OpenAI-compatible client: the only file that imports openai.

Retries are ours, not the library's, so that what the endpoint says (429, Retry-After) is seen here.
Two kinds of trouble are told apart: what a later attempt may mend (429, 5xx, a time-out, a broken
reply) is retried and then becomes the outcome `failed` of one request; what no attempt will mend
(wrong key, unknown model, no server) stops everything with an `EndpointError`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

import openai
import tenacity

from generators.endpoint import OPENAI_URL, ResolvedEndpoint
from generators.errors import EndpointError
from generators.generate_config import SamplingConfig
from generators.llm_request import Request, read_reply

_LONGEST_WAIT_S = 60.0
_PROBE = Request(
    messages=(("user", "Name a colour, in a full sentence."),),
    # nobody would answer like this unless the schema is enforced
    schema={
        "type": "object",
        "properties": {"probe": {"type": "string", "enum": ["latentqa"]}},
        "required": ["probe"],
        "additionalProperties": False,
    },
    name="probe",
    max_tokens=64,
    sampling=SamplingConfig(temperature=None, top_p=None),
)


class RequestFailed(Exception):
    """One request got no reply within its retries; `filtered` if a filter refused its input."""

    def __init__(self, detail: str, *, filtered: bool = False) -> None:
        super().__init__(detail)
        self.filtered = filtered


class _Transient(Exception):
    def __init__(self, detail: str, wait_s: float | None = None, *, gone: bool = False) -> None:
        super().__init__(detail)
        self.wait_s = wait_s
        self.gone = gone


class Client:
    """Sends requests to one endpoint."""

    def __init__(self, endpoint: ResolvedEndpoint) -> None:
        self.endpoint = endpoint
        self._api = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            max_retries=0,
            timeout=endpoint.timeout_s,
            # a proxy set for the outside world cannot reach this machine's own servers
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not _loopback(endpoint.base_url)),
        )

    async def close(self) -> None:
        """Close connections."""
        await self._api.close()

    async def send(self, request: Request) -> tuple[str, float]:
        """Raw body of the reply to `request`, and the seconds that it took.

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
            return await retrying(self._attempt, request, self.endpoint.timeout_s)
        except _Transient as error:
            if error.gone:
                raise self._error(
                    "cannot be reached any more",
                    "Finished replies are kept; start the server again and run again.",
                ) from error
            raise RequestFailed(str(error)) from error

    async def probe(self) -> None:
        """Send one small request, to see trouble before any work is spent.

        Raises:
            EndpointError: unreachable, wrong key, model missing, no chat completions, or a server
                that ignores JSON schemas; one line says which, where, and what to do.
        """
        try:
            raw, _ = await self._attempt(_PROBE, self.endpoint.probe_timeout_s)
        except RequestFailed as error:
            raise self._error(
                f"refused a request with a JSON schema ({error})",
                "Use an endpoint with structured output (response_format).",
            ) from error
        except _Transient as error:
            raise self._error(
                f"gave no usable reply to a trial request ({error})",
                "Check generate.endpoint.base_url (it usually ends with /v1) and that the server "
                "runs.",
            ) from error
        outcome = read_reply("", raw)
        content = outcome.content.strip() if outcome else ""
        try:
            fits = json.loads(content) == {"probe": "latentqa"}
        except ValueError:
            fits = False
        if not fits:
            raise self._error(
                f'ignores JSON schemas: expected {{"probe": "latentqa"}}, got {content[:60]!r}',
                "Use a server that enforces response_format (llama.cpp, vLLM, a hosted API).",
            )

    async def _attempt(self, request: Request, timeout_s: float) -> tuple[str, float]:
        start = time.monotonic()
        try:
            # the library's time-out is one for each read; this one is for the whole reply
            async with asyncio.timeout(timeout_s):
                reply = await self._api.chat.completions.with_raw_response.create(
                    **self._body(request)
                )
                raw = reply.text
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _Transient(f"no reply within {timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _Transient(self._safe(f"no connection: {cause}"), gone=True) from error
        except openai.APIStatusError as error:
            raise await self._status(error) from error
        if read_reply("", raw) is None:
            raise _Transient(f"the reply is no chat completion: {self._safe(raw)[:80]!r}")
        return raw, time.monotonic() - start

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling.model_dump(exclude_none=True) | {"seed": request.seed}
        # OpenAI has renamed the field; the servers of others know the old name
        limit = "max_completion_tokens" if self.endpoint.base_url == OPENAI_URL else "max_tokens"
        return {
            "model": self.endpoint.model,
            "messages": [{"role": r, "content": c} for r, c in request.messages],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": request.name, "strict": True, "schema": request.schema},
            },
            limit: request.max_tokens,
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
        said = self._safe(error.message)[:160]
        if status == 404:
            return self._error(
                f"has no model {self.endpoint.model!r}, or no chat completions (HTTP 404)"
                + await self._offered(),
                "Check generate.endpoint.model and base_url (it usually ends with /v1).",
            )
        if status == 429 and error.code == "insufficient_quota":
            return self._error("has no credit left (HTTP 429)", "Top up the account and run again.")
        if status in (408, 409, 429) or status >= 500:
            return _Transient(f"HTTP {status}: {said}", _retry_after(error))
        return RequestFailed(
            f"HTTP {status}: {said}", filtered=error.code in ("content_filter", "content_policy")
        )

    async def _offered(self) -> str:
        try:
            async with asyncio.timeout(5):
                names = [model.id for model in (await self._api.models.list()).data]
        except (TimeoutError, openai.OpenAIError, ValueError, TypeError):
            return ""  # only an addition to an error that is told anyway
        return f"; it offers {', '.join(names[:8])}" if names else ""

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        said = error.wait_s if isinstance(error, _Transient) else None
        if said is not None:
            return min(said, _LONGEST_WAIT_S)
        growing = self.endpoint.backoff_s * 2 ** (state.attempt_number - 1)
        return min(growing, _LONGEST_WAIT_S) * random.uniform(0.75, 1.25)

    def _safe(self, text: str) -> str:
        """`text` as one line, without the key."""
        key = self.endpoint.api_key
        return " ".join((text.replace(key, "[key]") if len(key) > 4 else text).split())

    def _error(self, what: str, do: str) -> EndpointError:
        at = urlsplit(self.endpoint.base_url)
        where = f"{at.scheme}://{at.hostname}{f':{at.port}' if at.port else ''}{at.path}"
        return EndpointError(f"endpoint {where} (model {self.endpoint.model!r}) {what}. {do}")


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
