"""Serve a scripted OpenAI-compatible endpoint on this machine, for tests and examples.

It answers over real HTTP by a function of the request, so that prompts, kinds and clients can be
tried without any model:

```python
with ScriptedEndpoint(lambda body: {"answer": "yes"}) as endpoint:
    ...  # endpoint.base_url, endpoint.requests
```

The trial request that a client sends first gets the reply that it wants.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from core.documents.canonical import digest
from generators.llm.chat.structured import PROBE_REPLY, PROBE_SCHEMA, STATEMENT

PROSE = "Certainly! Here is what you asked for."

_WORD_LIST = (
    "amber anchor basket beacon bramble candle canyon cedar cobalt compass copper coral "
    "cradle dagger dahlia ember falcon fennel ferry garnet ginger glacier hammer harbour "
    "hazel iris ivory jasper kettle lantern laurel linen lobster magnet maple marble meadow "
    "mosaic nettle nickel nutmeg orchid otter paddle pepper pewter pigeon plaster plum quarry "
    "quartz quiver raven ribbon saddle saffron sapphire sparrow spindle sulphur tallow "
    "thimble thistle timber trumpet tulip tunnel turnip velvet violin walnut wicker willow "
    "zephyr zinc"
)
_WORDS = _WORD_LIST.split()


def schema_of(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find the schema that a request asks for, by its format or in its first message.

    Only a model that reads (as ours here does) finds the second.
    """
    wanted = request.get("response_format", {})
    found: dict[str, Any] | None = None
    if wanted.get("type") == "json_schema":
        found = wanted["json_schema"]["schema"]
    else:
        _, _, stated = request["messages"][0]["content"].rpartition(STATEMENT)
        if stated.startswith("{"):  # what the user says may follow, where roles are joined
            found, _ = json.JSONDecoder().raw_decode(stated)
    return found


def is_probe(request: Mapping[str, Any]) -> bool:
    """Whether this is a client's trial request."""
    return "messages" in request and schema_of(request) == PROBE_SCHEMA


def plausible_reply(request: Mapping[str, Any]) -> dict[str, str] | str:
    """Make a reply that fits the request's schema and passes the filters.

    It is the same for the same request. Every property gets some words of the last message, so that
    answers are about what was asked, and some drawn by a digest of the request, so that no two
    replies are alike. A request that shows no schema gets prose.
    """
    schema = schema_of(request)
    if schema is None:
        return PROSE
    asked = [w.strip(".,:!?\"'") for w in request["messages"][-1]["content"].split()]
    reply: dict[str, str] = {}
    for name, rule in schema["properties"].items():
        if "enum" in rule:
            reply[name] = rule["enum"][0]
            continue
        draw = random.Random(digest([request["messages"], request.get("seed"), name]))
        taken = [word for word in asked if len(word) > 3]
        echo = draw.sample(taken, min(8, len(taken)))
        reply[name] = " ".join([*draw.sample(_WORDS, 6), *echo]) + "."
    return reply


def chat_completion(request: Mapping[str, Any], content: Any) -> dict[str, Any]:
    """Make the body of a chat completion; a `content` that is no text becomes JSON."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": digest(dict(request))[:24],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
    }


class ScriptedEndpoint:
    """An endpoint that listens for as long as the context lasts.

    Attributes:
        requests: bodies of all chat requests so far, in the order of arrival, a client's trial
            request included.
    """

    def __init__(self, reply: Callable[[Mapping[str, Any]], Any] = plausible_reply) -> None:
        """Listen on a free port.

        Args:
            reply: makes the content of the reply to a request's body.
        """
        requests: list[dict[str, Any]] = []
        self.requests = requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each kept-alive reply waits for an ACK

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                requests.append(body)
                content = PROBE_REPLY if is_probe(body) else reply(body)
                data = json.dumps(chat_completion(body, content)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Write no log on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def base_url(self) -> str:
        """Address, with `/v1`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
