"""HTTP/1.1 for many small requests to one address, at a fraction of a general client's cost.

Generation is hundreds of thousands of POSTs with the same headers to the same path. A general
client builds URL, headers and request anew for each and looks through its pool of connections;
that costs many times what the exchange itself does. Here the head is built once, an idle connection
is taken from a stack, and httptools (uvicorn's parser) reads the reply.

What it does not do: proxies, redirects, cookies, compression, HTTP/2. Where a proxy stands between,
`generators/llm/api.py` takes over.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

_IDLE_S = 4.5
"""Longest that a connection is kept unused, in seconds: many servers end theirs after five."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """Nothing whole came back; `gone` where there was not even a connection."""

    def __init__(self, detail: str, *, gone: bool = False) -> None:
        super().__init__(detail)
        self.gone = gone


class HttpLines:
    """Connections to one address, as many as there are requests under way.

    Args:
        url: what is posted to.
        headers: of every request; Host, Content-Length and Connection are ours.
        connect_s: longest wait for a connection, in seconds.
        tls: how certificates are checked; for https, None for Python's own way.

    Raises:
        ValueError: `url` is no http or https address, or a header has a line break.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        at = urlsplit(url)
        if at.scheme not in _PORTS or not at.hostname:
            raise ValueError(f"expected an http or https address, got {at.scheme!r}")
        self._host = at.hostname
        self._port = at.port or _PORTS[at.scheme]
        # True checks certificates as Python does; without either, a key would go out in the clear
        self._tls = (tls or True) if at.scheme == "https" else None
        self._connect_s = connect_s
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        fields = {"Host": at.netloc.rpartition("@")[2], **headers}
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
        if any(character in line for line in lines for character in "\r\n"):
            raise ValueError("a header has a line break")
        head = "\r\n".join([*lines, "Accept-Encoding: identity", "Content-Length: "])
        self._head = head.encode("latin-1")
        self._idle: list[_Line] = []

    async def post(self, body: bytes) -> Answer:
        """The answer to `body`.

        Raises:
            NoAnswer: no connection, or it ended before the answer was whole.
        """
        line = self._unused() or await self._connected()
        try:
            answer = await line.ask(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        except BaseException:
            # also where the wait was cancelled: a late answer must not be taken for another's
            line.close()
            raise
        if line.usable:
            self._idle.append(line)
        return answer

    def close(self) -> None:
        """Close what is unused; what is under way closes itself."""
        for line in self._idle:
            line.close()
        self._idle.clear()

    def _unused(self) -> _Line | None:
        # the last used first, so that those that are too many grow old and go
        oldest = time.monotonic() - _IDLE_S
        while self._idle:
            line = self._idle.pop()
            if line.usable and line.used_at > oldest:
                return line
            line.close()
        return None

    async def _connected(self) -> _Line:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, line = await loop.create_connection(
                    lambda: _Line(loop), self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise NoAnswer(f"none within {self._connect_s:g} s", gone=True) from None
        except OSError as error:
            raise NoAnswer(str(error), gone=True) from error
        return line


class _Line(asyncio.Protocol):
    """One connection, with at most one request under way.

    Attributes:
        usable: whether another request may be sent.
        used_at: when its last answer came.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.usable = True
        self.used_at = 0.0
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._until_closed = False

    def ask(self, data: bytes) -> asyncio.Future[Answer]:
        """The answer to `data`, a whole request."""
        self._answer = self._loop.create_future()
        self._transport.write(data)
        return self._answer

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self.usable = False
        self._transport.abort()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the reply is not HTTP ({error})")
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._until_closed:
            self.on_message_complete()
        self._fail("the connection was closed before the reply was whole")

    # what httptools calls

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._until_closed = self._parser.get_status_code() >= 200 and not (
            "content-length" in self._headers or "transfer-encoding" in self._headers
        )

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # only an announcement
            return
        self._until_closed = False
        self.used_at = time.monotonic()
        self.usable = self.usable and self._parser.should_keep_alive()
        if not self.usable:
            self._transport.close()
        waiting, self._answer = self._answer, None
        if waiting is None:
            self.close()  # nothing was asked: whatever this is, the connection is of no use
        elif not waiting.done():
            waiting.set_result(Answer(status, self._headers, b"".join(self._body)))

    def _fail(self, detail: str) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(NoAnswer(detail))
