"""The endpoint's API by OpenAI's own client: the only file that imports openai.

It makes the headers of every request, lists models, and has the files and batches. Chat completions
go through it only where a proxy stands between (`generators/llm/http_line.py` says why).

The client's own retries are off: what is tried again, and when, is decided here for all alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, Literal

import httpx2  # what openai is built on
import openai
from openai.types import Batch

from generators.llm.chat_body import CHAT_PATH
from generators.llm.endpoint import ResolvedEndpoint
from generators.llm.failures import Transient, error_from_response, one_line, redact_secrets
from generators.llm.http_line import Answer, NoAnswer

_CONNECT_S = 10.0
_TRANSFER_S = 600.0
"""Longest silence while a file is sent or read, in seconds."""
_MODELS_S = 5.0
NONCE = "latentqa"
"""Name in a batch's metadata of the number that we gave it."""


class NotThere(Exception):
    """The endpoint has no such file or batch, or no such path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchState:
    """A batch as the endpoint sees it.

    Attributes:
        nonce: the number that we gave it; empty if it is none of ours.
        done: lines that have a reply or an error.
        total: lines.
        created_at: seconds since 1970.
        ended_at: likewise; None while it goes on.
        trouble: why a batch as a whole has failed.
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
    trouble: str


class Api:
    """The API of `endpoint`."""

    def __init__(self, endpoint: ResolvedEndpoint) -> None:
        self.endpoint = endpoint
        self._lines: list[openai.AsyncOpenAI] = []
        self._idle: list[openai.AsyncOpenAI] = []

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """How certificates are checked."""
        return httpx2.create_ssl_context()

    def headers(self) -> dict[str, str]:
        """Headers of every request: the key, and who is asking."""
        with self._line() as line:
            made = {**line.default_headers, **line.auth_headers}
        return {
            name: value
            for name, value in made.items()
            # the client's telemetry, half of the head of a small request
            if isinstance(value, str) and not name.lower().startswith("x-stainless")
        }

    async def close(self) -> None:
        """Close connections."""
        for line in self._lines:
            await line.close()

    async def post(self, path: str, body: bytes) -> Answer:
        """The answer to `body`, whatever its status.

        Raises:
            NoAnswer: no connection, or it ended before the answer was whole.
        """
        with self._line() as line:
            try:
                came = await line.post(
                    path,
                    cast_to=httpx2.Response,
                    content=body,
                    options={"headers": {"Content-Type": "application/json"}},
                )
            except openai.APIStatusError as error:
                came = error.response
            except openai.APITimeoutError as error:
                raise TimeoutError from error
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                gone = isinstance(cause, httpx2.ConnectError)
                raise NoAnswer(str(cause), gone=gone) from error
        return Answer(came.status_code, _lower(came.headers), came.content)

    async def models(self) -> list[str]:
        """Names of the models that the endpoint offers; empty where it does not tell."""
        try:
            async with asyncio.timeout(_MODELS_S):
                with self._line() as line:
                    return [model.id for model in (await line.models.list()).data]
        except (TimeoutError, openai.OpenAIError, ValueError, TypeError):
            return []  # only an addition to an error that is told anyway

    async def upload(self, name: str, lines: BinaryIO) -> str:
        """Number of the file of batch lines that now lies at the endpoint.

        Raises:
            Transient, NotThere, RequestFailed, EndpointError: as `_told` says, and so do all below.
        """
        lines.seek(0)
        with self._told(), self._line() as line:
            made = await line.files.create(file=(name, lines), purpose="batch", timeout=_TRANSFER_S)
        return made.id

    async def create_batch(self, file_id: str, nonce: str, window: Literal["24h"]) -> BatchState:
        """A new batch over an uploaded file, which carries our `nonce`."""
        with self._told(), self._line() as line:
            made = await line.batches.create(
                input_file_id=file_id,
                endpoint=f"/v1{CHAT_PATH}",  # type: ignore[arg-type]  # a literal, joined
                completion_window=window,
                metadata={NONCE: nonce},
            )
        return _state(made)

    async def batch(self, batch_id: str) -> BatchState:
        """How far a batch is."""
        with self._told(), self._line() as line:
            return _state(await line.batches.retrieve(batch_id))

    async def batches(self) -> AsyncIterator[BatchState]:
        """All batches of the account, the newest first."""
        with self._told(), self._line() as line:
            async for batch in line.batches.list(limit=100):
                yield _state(batch)

    async def lines(self, file_id: str) -> AsyncIterator[bytes]:
        """Lines of a file at the endpoint, one after the other."""
        rest = b""
        with self._told(), self._line() as line:
            content = line.files.with_streaming_response.content(file_id, timeout=_TRANSFER_S)
            async with content as response:
                async for chunk in response.iter_bytes():
                    # at line feeds alone: JSON may hold other characters that end lines
                    *whole, rest = (rest + chunk).split(b"\n")
                    for found in whole:
                        yield found
        if rest.strip():
            yield rest

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Words for what openai raises.

        Raises:
            Transient: a later attempt may go better.
            NotThere: HTTP 404.
            RequestFailed: refused.
            EndpointError: the key is refused, or there is no credit.
        """
        try:
            yield
        except openai.APIStatusError as error:
            said, headers = error.response.text, _lower(error.response.headers)
            if error.status_code == 404:
                words = one_line(redact_secrets(self.endpoint, said))[:160]
                raise NotThere(f"HTTP 404: {words}") from None
            raise error_from_response(self.endpoint, error.status_code, headers, said) from None
        except openai.APITimeoutError:
            raise Transient("no answer in time", kind="silent") from None
        except (openai.APIConnectionError, httpx2.TransportError) as error:
            cause = error.__cause__ or error
            words = one_line(redact_secrets(self.endpoint, str(cause)))
            raise Transient(f"no connection: {words}") from None

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
                        verify=self.tls, trust_env=self.endpoint.proxied
                    ),
                )
            )
            self._lines.append(self._idle[-1])
        line = self._idle.pop()
        try:
            yield line
        finally:
            self._idle.append(line)


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
        trouble="; ".join(f"{error.code}: {error.message}" for error in errors[:3]),
    )


def _lower(headers: httpx2.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
