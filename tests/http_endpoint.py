"""A scripted endpoint over real HTTP whose every response a test may make."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from core.documents.canonical import digest
from generators.llm.chat.structured import PROBE_REPLY
from generators.llm.testing import chat_completion, is_probe, plausible_reply


class ScriptedResponse(NamedTuple):
    """An HTTP response; a `body` that is neither text nor bytes becomes JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


def request_id(request: Mapping[str, Any]) -> str:
    """Digest all that a request's body asks for, as the reply's `id` has it."""
    return digest(dict(request))[:24]


def token_completion(request: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """Make the body of the completion of token ids.

    Args:
        request: the request's body.
        choice: `text`, and what else is to stand in the choice; `token_ids` are counted.
    """
    usage = {"prompt_tokens": len(request["prompt"])}
    if "token_ids" in choice:
        usage["completion_tokens"] = len(choice["token_ids"])
    return {
        "id": request_id(request),
        "object": "text_completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", **choice}],
        "usage": usage,
    }


class ScriptedEndpoint:
    """An endpoint that listens for as long as the context lasts.

    A subclass may override `respond`, which makes the response to any request, or `complete`, which
    makes the one to a chat request.

    Attributes:
        requests: bodies of all chat requests so far, in the order of arrival, a client's trial
            request included.

    Args:
        reply: makes the content of the reply to a request's body.
    """

    def __init__(self, reply: Callable[[Mapping[str, Any]], Any] = plausible_reply) -> None:
        self.requests: list[dict[str, Any]] = []
        self._reply = reply
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def base_url(self) -> str:
        """Address, with `/v1`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def work(self) -> list[dict[str, Any]]:
        """The requests without the clients' trial requests."""
        return [request for request in self.requests if not is_probe(request)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def respond(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes
    ) -> ScriptedResponse | None:
        """Make the response to a request; None for none at all.

        Args:
            method: HTTP's.
            path: without its query.
            headers: of the request, names in lower case.
            data: body of the request.
        """
        if method != "POST" or not path.endswith("/completions"):
            return ScriptedResponse(404, {"error": {"message": "no such path"}})
        body = json.loads(data)
        self.requests.append(body)
        return self.complete(body)

    def complete(self, body: dict[str, Any]) -> ScriptedResponse:
        """Make the response to the request `body`."""
        if "prompt" in body:
            return ScriptedResponse(200, token_completion(body, self._reply(body)))
        content = PROBE_REPLY if is_probe(body) else self._reply(body)
        return ScriptedResponse(200, chat_completion(body, content))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hung up: that is what some tests are about."""


def _handler(endpoint: ScriptedEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each kept-alive reply waits for an ACK

        def do_GET(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def _respond(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.partition("?")[0]
            made = endpoint.respond(self.command, path, headers, self._body())
            if made is None:
                self.close_connection = True
                return
            text = made.body if isinstance(made.body, str | bytes) else json.dumps(made.body)
            data = text if isinstance(text, bytes) else text.encode()
            self.send_response(made.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, format: str, *args: Any) -> None:
            """Write no log on stderr."""

    return Handler
