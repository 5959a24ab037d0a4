"""A scripted OpenAI-compatible endpoint over real HTTP on this machine, for tests and examples.

It answers by a function of the request and has faults on order, so that what a client does in
trouble can be seen without any model:

```python
with ScriptedEndpoint(fault=lambda number, request: "429" if number == 3 else None) as endpoint:
    ...  # endpoint.base_url, endpoint.requests
```
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from core.canonical import digest
from generators.llm.scripted_batches import BatchFault, ScriptedBatches
from generators.llm.structured import PROBE, STATEMENT

Fault = Literal[
    "400", "401", "404", "429", "429_after", "500", "503", "hang", "garbage", "prose", "bad_json",
    "violation", "cut_off", "refusal", "filtered", "empty",
]  # fmt: skip
"""`429_after` names a pause with Retry-After; `garbage` is no chat completion at all, `prose` a
reply that ignores its schema, `bad_json` one that breaks off within it while the server says that
it is whole, `violation` JSON of another schema; `hang` waits for `hang_s`."""
_PROSE = "Certainly! Here is what you asked for."

_WORD_LIST = """
amber anchor basket beacon bramble candle canyon cedar cobalt compass copper coral cradle dagger
dahlia ember falcon fennel ferry garnet ginger glacier hammer harbour hazel iris ivory jasper
kettle lantern laurel linen lobster magnet maple marble meadow mosaic nettle nickel nutmeg
orchid otter paddle pepper pewter pigeon plaster plum quarry quartz quiver raven ribbon saddle
saffron sapphire sparrow spindle sulphur tallow thimble thistle timber trumpet tulip tunnel
turnip velvet violin walnut wicker willow zephyr zinc
"""
_WORDS = _WORD_LIST.split()


def schema_of(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema that a request asks for, by its format or in its first message; None if neither.

    Only a model that reads (as ours here does) finds the second.
    """
    wanted = request.get("response_format", {})
    if wanted.get("type") == "json_schema":
        return wanted["json_schema"]["schema"]
    _, _, stated = request["messages"][0]["content"].rpartition(STATEMENT)
    return json.loads(stated) if stated.startswith("{") else None


def is_probe(request: Mapping[str, Any]) -> bool:
    """Whether this is a client's trial request."""
    return schema_of(request) == PROBE.schema


def request_id(request: Mapping[str, Any]) -> str:
    """Digest of all that a request's body asks for; the reply's `id` has it."""
    return digest(dict(request))[:24]


def plausible_reply(request: Mapping[str, Any]) -> dict[str, str] | str:
    """A reply that fits the request's schema and passes the filters, the same for the same request.

    Prose where the request shows no schema.


    Every property gets some words of the last message, so that answers are about what was asked,
    and some drawn by a digest of the request, so that no two replies are alike.
    """
    schema = schema_of(request)
    if schema is None:
        return _PROSE
    asked = [w.strip(".,:!?\"'") for w in request["messages"][-1]["content"].split()]
    properties = schema["properties"]
    reply: dict[str, str] = {}
    for name, rule in properties.items():
        if "enum" in rule:
            reply[name] = rule["enum"][0]
            continue
        draw = random.Random(digest([request["messages"], request.get("seed"), name]))
        taken = [word for word in asked if len(word) > 3]
        echo = draw.sample(taken, min(8, len(taken)))
        reply[name] = " ".join([*draw.sample(_WORDS, 6), *echo]) + "."
    return reply


class ScriptedEndpoint:
    """The endpoint, for as long as the context lasts.

    Attributes:
        requests: bodies of all chat requests so far, in the order of arrival, the faulty ones and
            a client's trial request included; those of batches as they are carried out.
        key: the only key that is let in; None lets in every one.
        account: its files and batches.
    """

    def __init__(
        self,
        reply: Callable[[Mapping[str, Any]], Any] = plausible_reply,
        *,
        fault: Callable[[int, Mapping[str, Any]], Fault | None] = lambda number, request: None,
        latency_s: float = 0.0,
        slots: int | None = None,
        hang_s: float = 5.0,
        retry_after: str | None = None,
        headers: Callable[[int], Mapping[str, str]] = lambda number: {},
        formats: Sequence[str] = ("json_schema", "json_object"),
        refuses_formats: bool = False,
        models: Sequence[str] = ("scripted",),
        key: str | None = None,
        batch_fault: Callable[[int], BatchFault | None] = lambda number: None,
        batch_polls: int = 1,
    ) -> None:
        """
        Args:
            reply: makes the reply's content of the request's body; what is no text becomes JSON.
            fault: given the number of the request (from 1) and its body, the fault it meets.
            latency_s: seconds that each reply takes.
            slots: replies that are made at once, the others wait; None for no limit.
            hang_s: seconds that a hanging request hangs.
            retry_after: value of that header on 429; `429_after` has it at 0.05 if it is None.
            headers: further headers of the response to a request, given its number.
            formats: the types of `response_format` that are enforced.
            refuses_formats: whether others get a 400; else they are ignored.
            models: names that are served; others get a 404.
            key: the only key that is let in; None lets in every one.
            batch_fault: given the number of a batch (from 1), the fault that it meets.
            batch_polls: looks at a batch until it has ended.
        """
        self.requests: list[dict[str, Any]] = []
        self._reply = reply
        self._fault = fault
        self._latency_s = latency_s
        self._slots = threading.Semaphore(slots) if slots else contextlib.nullcontext()
        self._hang_s = hang_s
        self._retry_after = retry_after
        self._headers = headers
        self._formats = tuple(formats)
        self._refuses_formats = refuses_formats
        self._models = tuple(models)
        self.key = key
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.account = ScriptedBatches(
            lambda body: self.complete(body)[:2], batch_fault, batch_polls, self._ended.wait, hang_s
        )
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

    def __enter__(self) -> ScriptedEndpoint:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def handle(
        self, method: str, path: str, key: str, kind: str, data: bytes
    ) -> tuple[int, Any, Mapping[str, str]] | None:
        """Status, body (text, bytes, or JSON) and headers of the response; None for none at all.

        Args:
            method: HTTP's.
            path: without its query.
            key: that of the request.
            kind: content type of the request.
            data: body of the request.
        """
        if self.key is not None and key != self.key:
            refused = _error(f"Incorrect API key provided: {key[:8]}***", "invalid_api_key")
            return 401, refused, {}
        under = path.partition("/v1")[2]
        if under == "/models":
            return 200, {"object": "list", "data": [{"id": name} for name in self._models]}, {}
        if under.startswith(("/files", "/batches")):
            made = self.account.handle(method, under, kind, data)
            return None if made is None else (*made, {})
        if method != "POST" or under != "/chat/completions":
            return 404, _error("no such path", "not_found"), {}
        return self.complete(json.loads(data))

    def complete(self, body: dict[str, Any]) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body (text, or JSON) and headers of the response to a chat request."""
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
        fault = self._fault(number, body)
        headers = dict(self._headers(number))
        if fault in ("429", "429_after"):
            pause = self._retry_after or ("0.05" if fault == "429_after" else None)
            headers |= {"Retry-After": pause} if pause else {}
            return 429, _error("scripted 429", "scripted_429"), headers
        with self._slots:
            self._ended.wait(self._latency_s + (self._hang_s if fault == "hang" else 0.0))
        if fault is not None and fault.isdigit():
            return int(fault), _error(f"scripted {fault}", f"scripted_{fault}"), headers
        if body["model"] not in self._models:
            missing = _error(f"model {body['model']} does not exist", "model_not_found")
            return 404, missing, headers
        if fault == "garbage":
            return 200, "<html>gateway</html>", headers
        wanted = body.get("response_format", {}).get("type")
        if wanted in (None, *self._formats):
            made = self._reply(body)
        elif self._refuses_formats:
            return 400, _error(f"response_format {wanted} is not supported", "unsupported"), headers
        else:
            made = self._reply({k: v for k, v in body.items() if k != "response_format"})
        content = made if isinstance(made, str) else json.dumps(made, ensure_ascii=False)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        finish = "stop"
        if fault == "prose":
            message["content"] = _PROSE
        elif fault == "violation":
            message["content"] = '{"something": "else"}'
        elif fault == "bad_json":
            message["content"] = content[: len(content) // 2]
        elif fault == "cut_off":
            message["content"], finish = content[: len(content) // 2], "length"
        elif fault == "refusal":
            message["content"], message["refusal"] = None, "I cannot help with that."
        elif fault == "filtered":
            message["content"], finish = "", "content_filter"
        elif fault == "empty":
            message["content"] = ""
        completion = {
            "id": request_id(body),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
        }
        return 200, completion, headers


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is what some tests are about: no words about it."""


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted", "code": code}}


def _handler(endpoint: ScriptedEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each kept-alive reply waits for an ACK

        def do_GET(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def _respond(self) -> None:
            made = endpoint.handle(
                self.command,
                self.path.partition("?")[0],
                self.headers.get("Authorization", "").removeprefix("Bearer "),
                self.headers.get("Content-Type", ""),
                self._body(),
            )
            if made is None:
                self.close_connection = True
                return
            status, body, headers = made
            text = body if isinstance(body, str | bytes) else json.dumps(body)
            data = text if isinstance(text, bytes) else text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
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
            """No log on stderr."""

    return Handler
