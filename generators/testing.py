"""A scripted OpenAI-compatible endpoint over real HTTP on this machine, for tests and examples.

It answers by a function of the request and has faults on order, so that what a client does in
trouble can be seen without any model:

```python
with ScriptedEndpoint(fault=lambda number, request: "429" if number == 3 else None) as endpoint:
    ...  # endpoint.base_url, endpoint.requests
```
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from generators.canonical import digest

Fault = Literal[
    "400", "401", "404", "429", "500", "hang", "garbage", "prose", "bad_json", "cut_off",
    "refusal", "filtered", "empty",
]  # fmt: skip
"""`garbage` is no chat completion at all, `prose` a reply that ignores its schema, `bad_json` one
that breaks off within it while the server says that it is whole; `hang` waits for `hang_s`."""

_WORD_LIST = """
amber anchor basket beacon bramble candle canyon cedar cobalt compass copper coral cradle dagger
dahlia ember falcon fennel ferry garnet ginger glacier hammer harbour hazel iris ivory jasper
kettle lantern laurel linen lobster magnet maple marble meadow mosaic nettle nickel nutmeg
orchid otter paddle pepper pewter pigeon plaster plum quarry quartz quiver raven ribbon saddle
saffron sapphire sparrow spindle sulphur tallow thimble thistle timber trumpet tulip tunnel
turnip velvet violin walnut wicker willow zephyr zinc
"""
_WORDS = _WORD_LIST.split()


def plausible_reply(request: Mapping[str, Any]) -> dict[str, str]:
    """A reply that fits the request's schema and passes the filters, the same for the same request.

    Every property gets some words of the last message, so that answers are about what was asked,
    and some drawn by a digest of the request, so that no two replies are alike.
    """
    asked = [w.strip(".,:!?\"'") for w in request["messages"][-1]["content"].split()]
    properties = request["response_format"]["json_schema"]["schema"]["properties"]
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
            a client's trial request included.
    """

    def __init__(
        self,
        reply: Callable[[Mapping[str, Any]], Any] = plausible_reply,
        *,
        fault: Callable[[int, Mapping[str, Any]], Fault | None] = lambda number, request: None,
        latency_s: float = 0.0,
        hang_s: float = 5.0,
        retry_after: str | None = None,
        models: Sequence[str] = ("scripted",),
        key: str | None = None,
    ) -> None:
        """
        Args:
            reply: makes the reply's content of the request's body; what is no text becomes JSON.
            fault: given the number of the request (from 1) and its body, the fault it meets.
            latency_s: seconds before each reply.
            hang_s: seconds that a hanging request hangs.
            retry_after: value of that header on 429.
            models: names that are served; others get a 404.
            key: the only key that is let in; None lets in every one.
        """
        self.requests: list[dict[str, Any]] = []
        self._reply = reply
        self._fault = fault
        self._latency_s = latency_s
        self._hang_s = hang_s
        self._retry_after = retry_after
        self._models = tuple(models)
        self._key = key
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def base_url(self) -> str:
        """Address, with `/v1`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def work(self) -> list[dict[str, Any]]:
        """The requests without the clients' trial requests."""
        return [r for r in self.requests if r["response_format"]["json_schema"]["name"] != "probe"]

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

    def handle(self, path: str, key: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Status and body (text, or JSON) of the response."""
        if self._key is not None and key != self._key:
            return 401, _error(f"Incorrect API key provided: {key[:8]}***", "invalid_api_key")
        if path.endswith("/models"):
            return 200, {"object": "list", "data": [{"id": name} for name in self._models]}
        if body is None or not path.endswith("/chat/completions"):
            return 404, _error("no such path", "not_found")
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
        self._ended.wait(self._latency_s)
        fault = self._fault(number, body)
        if fault == "hang":
            self._ended.wait(self._hang_s)
        if fault is not None and fault.isdigit():
            return int(fault), _error(f"scripted {fault}", f"scripted_{fault}")
        if body["model"] not in self._models:
            return 404, _error(f"model {body['model']} does not exist", "model_not_found")
        if fault == "garbage":
            return 200, "<html>gateway</html>"
        made = self._reply(body)
        content = made if isinstance(made, str) else json.dumps(made, ensure_ascii=False)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        finish = "stop"
        if fault == "prose":
            message["content"] = "Certainly! Here is what you asked for."
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
        return 200, {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
        }

    def headers(self, status: int) -> dict[str, str]:
        """Headers of a response with this status."""
        limited = status == 429 and self._retry_after is not None
        return {"Retry-After": str(self._retry_after)} if limited else {}


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
            self._respond(None)

        def do_POST(self) -> None:
            self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _respond(self, body: dict[str, Any] | None) -> None:
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, made = endpoint.handle(self.path, key, body)
            data = (made if isinstance(made, str) else json.dumps(made)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in endpoint.headers(status).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """No log on stderr."""

    return Handler
