"""Talk to an endpoint through OpenAI's own client: the only file that imports openai.

Requests, the list of models, files and batches go through `openai.AsyncOpenAI` over its
aiohttp transport, behind the environment's proxy where there is one. The client's own retries are
off: what is sent again, and when, is decided here for all requests alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Literal, cast

import aiohttp  # openai's transport: its exceptions are the causes of openai's
import httpx2  # what openai is built on
import openai
from openai.types import Batch
from openai.types.chat import ChatCompletionMessageParam

from core.text.redact import redact
from core.text.wording import size
from generators.llm.chat.failures import (
    TransientError,
    endpoint_error,
    error_from_response,
    one_line,
)
from generators.llm.endpoint.resolve import CHAT_PATH, OPENAI_URL, ResolvedEndpoint, redact_secrets

_CONNECT_S = 10.0
_TRANSFER_S = 600.0
"""Longest silence while a file is sent or read, in seconds."""
_MODELS_S = 5.0
_MOST_CONNECTIONS = 10_000
"""The rate limiter bounds the requests under way; connections need no bound of their own."""
_MOST_BYTES = 1 << 24
"""Longest body of a reply, decompressed: a few bytes can be a bomb."""
NONCE = "latentqa"
"""Name in a batch's metadata of the number that we gave it."""


class NotFoundError(Exception):
    """The endpoint has no such file or batch, or no such path."""


class NoResponseError(Exception):
    """No whole response came back; `unreachable` where there was not even a connection."""

    def __init__(self, detail: str, *, unreachable: bool = False) -> None:
        super().__init__(detail)
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response, whatever its status; names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchState:
    """A batch as the endpoint sees it.

    Attributes:
        nonce: the number that we gave it; empty if it is none of ours.
        done: lines that have a reply or an error.
        total: lines.
        created_at: seconds since 1970.
        ended_at: likewise; None while it goes on.
        failure: why a batch as a whole has failed.
    """

    id: str
    status: str
    nonce: str
    done: int
    total: int
    created_at: float
    ended_at: float | None
    output_file: str | None
    error_file: str | None
    failure: str


class EndpointApi:
    """The API of `endpoint`; close it to close its connections."""

    def __init__(self, endpoint: ResolvedEndpoint) -> None:
        self.endpoint = endpoint

    @cached_property
    def _openai(self) -> openai.AsyncOpenAI:
        endpoint = self.endpoint
        try:
            http_client = openai.DefaultAioHttpClient(
                limits=httpx2.Limits(max_connections=_MOST_CONNECTIONS),
                follow_redirects=False,
                trust_env=not endpoint.is_local,
                event_hooks={"response": [_read_bounded]},
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise endpoint_error(
                endpoint,
                f"cannot be asked through the proxy of this environment ({redact(str(error))})",
                "Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, or name the host in NO_PROXY.",
            ) from error
        try:
            made = openai.AsyncOpenAI(
                base_url=endpoint.url_without_query,
                api_key=endpoint.api_key,
                default_headers=endpoint.all_headers,
                default_query=endpoint.query,
                max_retries=0,
                timeout=httpx2.Timeout(endpoint.timeout_s, connect=_CONNECT_S, pool=None),
                http_client=http_client,
            )
        except httpx2.InvalidURL as error:
            raise endpoint_error(
                endpoint,
                f"cannot be asked at this address ({error})",
                "Correct generate.endpoint.base_url.",
            ) from error
        if endpoint.url_without_query != OPENAI_URL:
            # the client takes these from the environment, and they are for OpenAI alone
            made.organization = made.project = None
            made._custom_headers = endpoint.all_headers
        return made

    async def close(self) -> None:
        """Close connections."""
        if "_openai" in self.__dict__:
            await self._openai.close()

    async def complete(self, body: Mapping[str, Any], timeout_s: float) -> HttpResponse:
        """Send the request `body`; the response has any status.

        Args:
            body: fields of the request: a chat's, or one with token ids as `prompt`.
            timeout_s: longest wait for the whole response, in seconds.

        Raises:
            NoResponseError: no connection, or it ended before the response was whole.
            TimeoutError: the response was not whole in time.
        """
        fields = dict(body)
        model, prompt = fields.pop("model"), fields.pop("prompt", None)
        # made before the clock starts: the first time, openai imports much
        chat = self._openai.chat.completions.with_raw_response
        # the reply as a whole has a time-out, not each read
        no_timeout = httpx2.Timeout(None, connect=_CONNECT_S)
        try:
            async with asyncio.timeout(timeout_s):
                if prompt is None:
                    messages = cast(Iterable[ChatCompletionMessageParam], fields.pop("messages"))
                    made: Any = await chat.create(
                        model=model, messages=messages, extra_body=fields, timeout=no_timeout
                    )
                else:
                    made = await self._openai.completions.with_raw_response.create(
                        model=model, prompt=prompt, extra_body=fields, timeout=no_timeout
                    )
                response = made.http_response
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APIConnectionError, httpx2.HTTPError, UnicodeError) as error:
            raise _no_response(error) from error
        return HttpResponse(response.status_code, _lower(response.headers), response.content)

    async def models(self) -> list[str]:
        """List the names of the models that the endpoint offers; none where it does not tell."""
        try:
            async with asyncio.timeout(_MODELS_S):
                return [model.id for model in (await self._openai.models.list()).data]
        except (TimeoutError, openai.OpenAIError, httpx2.HTTPError, ValueError, TypeError):
            return []  # only an addition to an error that is told anyway

    async def upload(self, name: str, lines: BinaryIO) -> str:
        """Upload a file of batch lines; returns its number at the endpoint.

        Raises:
            TransientError, NotFoundError, RequestFailed, EndpointError: as `_worded` says, and so
                do all below.
        """
        lines.seek(0)
        with self._worded():
            made = await self._openai.files.create(
                file=(name, lines), purpose="batch", timeout=_TRANSFER_S
            )
        return made.id

    async def create_batch(self, file_id: str, nonce: str, window: Literal["24h"]) -> BatchState:
        """Create a batch over an uploaded file, which carries our `nonce`."""
        with self._worded():
            made = await self._openai.batches.create(
                input_file_id=file_id,
                endpoint=f"/v1{CHAT_PATH}",  # type: ignore[arg-type]  # a literal, joined
                completion_window=window,
                metadata={NONCE: nonce},
            )
        return _state(made)

    async def batch(self, batch_id: str) -> BatchState:
        """Look up how far a batch is."""
        with self._worded():
            return _state(await self._openai.batches.retrieve(batch_id))

    async def batches(self) -> AsyncIterator[BatchState]:
        """List all batches of the account, the newest first."""
        with self._worded():
            async for batch in self._openai.batches.list(limit=100):
                yield _state(batch)

    async def lines(self, file_id: str) -> AsyncIterator[bytes]:
        """Read the lines of a file at the endpoint, one after the other."""
        rest = b""
        with self._worded():
            content = self._openai.files.with_streaming_response.content(
                file_id, timeout=_TRANSFER_S
            )
            async with content as response:
                async for chunk in response.iter_bytes():
                    # at line feeds alone: JSON may hold other characters that end lines
                    *whole, rest = (rest + chunk).split(b"\n")
                    for found in whole:
                        yield found
        if rest.strip():
            yield rest

    @contextlib.contextmanager
    def _worded(self) -> Iterator[None]:
        """Word what openai raises.

        Raises:
            TransientError: a later attempt may go better.
            NotFoundError: HTTP 404.
            RequestFailed: refused.
            EndpointError: the key is refused, or there is no credit.
        """
        try:
            yield
        except openai.APIStatusError as error:
            said, headers = error.response.text, _lower(error.response.headers)
            if error.status_code == 404:
                words = one_line(redact_secrets(self.endpoint, said))[:160]
                raise NotFoundError(f"HTTP 404: {words}") from None
            raise error_from_response(self.endpoint, error.status_code, headers, said) from None
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = _no_response(error)
            words = one_line(redact(redact_secrets(self.endpoint, str(cause))))
            raise TransientError(f"no connection: {words}") from None


async def _read_bounded(response: httpx2.Response) -> None:
    """Read a reply as far as it is one; files of batches are read elsewhere, line by line.

    Raises:
        httpx2.ReadError: it is longer than any reply.
    """
    if response.request.method != "POST":
        return
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MOST_BYTES:
            await response.aclose()
            raise httpx2.ReadError(f"the reply has more than {size(_MOST_BYTES)}")
    response._content = bytes(body)  # as its own `aread` does, which has no bound


def _no_response(error: BaseException) -> NoResponseError:
    """Say why no response came: the innermost cause, and whether there was a connection."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    unreachable = any(
        isinstance(
            one,
            aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | httpx2.ConnectError,
        )
        for one in causes
    )
    said = next((str(one) for one in reversed(causes) if str(one)), type(causes[-1]).__name__)
    if any(isinstance(one, httpx2.DecodingError) for one in causes):
        said = f"the reply cannot be decompressed ({said})"
    return NoResponseError(said, unreachable=unreachable)


def _state(batch: Batch) -> BatchState:
    counts = batch.request_counts
    errors = batch.errors.data if batch.errors and batch.errors.data else []
    ends = (batch.completed_at, batch.expired_at, batch.cancelled_at, batch.failed_at)
    return BatchState(
        id=batch.id,
        status=batch.status,
        nonce=(batch.metadata or {}).get(NONCE, ""),
        done=counts.completed + counts.failed if counts else 0,
        total=counts.total if counts else 0,
        created_at=batch.created_at,
        ended_at=next((at for at in ends if at is not None), None),
        output_file=batch.output_file_id,
        error_file=batch.error_file_id,
        failure="; ".join(f"{error.code}: {error.message}" for error in errors[:3]),
    )


def _lower(headers: httpx2.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
