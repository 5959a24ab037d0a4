"""A scripted endpoint with faults on order, latency, slots, models, a key, files and batches.

It shows what a client does in trouble without any model:

```python
with ScriptedEndpoint(fault=lambda number, request: "429" if number == 3 else None) as endpoint:
    ...  # endpoint.base_url, endpoint.requests
```
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import http_endpoint
from http_endpoint import ScriptedResponse
from scripted_batches import BatchFault, ScriptedBatches

from generators.llm.testing import PROSE, chat_completion, plausible_reply

Fault = Literal[
    "400", "401", "404", "429", "429_after", "500", "503", "hang", "garbage", "prose", "bad_json",
    "violation", "cut_off", "refusal", "filtered", "empty",
]  # fmt: skip
"""`429_after` names a pause with Retry-After; `garbage` is no chat completion at all, `prose` a
reply that ignores its schema, `bad_json` one that breaks off within it while the server says that
it is whole, `violation` JSON of another schema; `hang` waits for `hang_s`."""


def no_fault(number: int, request: Mapping[str, Any]) -> Fault | None:
    return None


def no_batch_fault(number: int) -> BatchFault | None:
    return None


def no_headers(number: int) -> Mapping[str, str]:
    return {}


@dataclass(eq=False)
class ScriptedEndpoint(http_endpoint.ScriptedEndpoint):
    """The endpoint, for as long as the context lasts.

    Attributes:
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
        requests: as the base's; those of batches stand there as they are carried out.
        account: its files and batches.
    """

    reply: Callable[[Mapping[str, Any]], Any] = plausible_reply
    fault: Callable[[int, Mapping[str, Any]], Fault | None] = no_fault
    latency_s: float = 0.0
    slots: int | None = None
    hang_s: float = 5.0
    retry_after: str | None = None
    headers: Callable[[int], Mapping[str, str]] = no_headers
    formats: Sequence[str] = ("json_schema", "json_object")
    refuses_formats: bool = False
    models: Sequence[str] = ("scripted",)
    key: str | None = None
    batch_fault: Callable[[int], BatchFault | None] = no_batch_fault
    batch_polls: int = 1

    def __post_init__(self) -> None:
        super().__init__(self.reply)
        self._lock = threading.Lock()
        self._free = threading.Semaphore(self.slots) if self.slots else contextlib.nullcontext()
        self._ended = threading.Event()
        self.account = ScriptedBatches(
            lambda body: self.complete(body)[:2],
            lambda number: self.batch_fault(number),
            self.batch_polls,
            self._ended.wait,
            self.hang_s,
        )

    def __enter__(self) -> ScriptedEndpoint:
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        super().__exit__(kind, error, trace)

    def respond(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes
    ) -> ScriptedResponse | None:
        key = headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and key != self.key:
            refused = error_body(f"Incorrect API key provided: {key[:8]}***", "invalid_api_key")
            return ScriptedResponse(401, refused)
        under = path.partition("/v1")[2]
        if under == "/models":
            served = [{"id": name} for name in self.models]
            return ScriptedResponse(200, {"object": "list", "data": served})
        if under.startswith(("/files", "/batches")):
            made = self.account.handle(method, under, headers.get("content-type", ""), data)
            return None if made is None else ScriptedResponse(*made)
        if method != "POST" or under != "/chat/completions":
            return ScriptedResponse(404, error_body("no such path", "not_found"))
        return self.complete(json.loads(data))

    def complete(self, body: dict[str, Any]) -> ScriptedResponse:
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
        fault = self.fault(number, body)
        headers = dict(self.headers(number))
        if fault in ("429", "429_after"):
            pause = self.retry_after or ("0.05" if fault == "429_after" else None)
            headers |= {"Retry-After": pause} if pause else {}
            return ScriptedResponse(429, error_body("scripted 429", "scripted_429"), headers)
        with self._free:
            self._ended.wait(self.latency_s + (self.hang_s if fault == "hang" else 0.0))
        if fault is not None and fault.isdigit():
            failed = error_body(f"scripted {fault}", f"scripted_{fault}")
            return ScriptedResponse(int(fault), failed, headers)
        if body["model"] not in self.models:
            missing = error_body(f"model {body['model']} does not exist", "model_not_found")
            return ScriptedResponse(404, missing, headers)
        if fault == "garbage":
            return ScriptedResponse(200, "<html>gateway</html>", headers)
        wanted = body.get("response_format", {}).get("type")
        if wanted not in (None, *self.formats):
            if self.refuses_formats:
                refused = error_body(f"response_format {wanted} is not supported", "unsupported")
                return ScriptedResponse(400, refused, headers)
            made = self.reply({k: v for k, v in body.items() if k != "response_format"})
        else:
            made = self.reply(body)
        return ScriptedResponse(200, faulty(chat_completion(body, made), fault), headers)


def faulty(completion: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
    """Spoil a completion by a fault of its content."""
    choice = completion["choices"][0]
    message = choice["message"]
    content = message["content"]
    changed: Mapping[str, Mapping[str, Any]] = {
        "prose": {"content": PROSE},
        "violation": {"content": '{"something": "else"}'},
        "bad_json": {"content": content[: len(content) // 2]},
        "cut_off": {"content": content[: len(content) // 2]},
        "refusal": {"content": None, "refusal": "I cannot help with that."},
        "filtered": {"content": ""},
        "empty": {"content": ""},
    }
    message |= changed.get(fault or "", {})
    finish = {"cut_off": "length", "filtered": "content_filter"}
    choice["finish_reason"] = finish.get(fault or "", "stop")
    return completion


def error_body(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted", "code": code}}
