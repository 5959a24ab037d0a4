import asyncio
import json
import socket
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from endpoints import resolved
from scripted_endpoint import Fault, ScriptedEndpoint

from core.errors import EndpointError
from generators.llm.chat.failures import RequestFailed
from generators.llm.chat.request import Form, Request
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.prices import Price, TokenCounts
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.form_finder import FormFinder
from generators.llm.log.request_log import RequestLog
from generators.llm.sending.rate_limiter import AdaptiveRateLimiter
from generators.llm.sending.sender import ChatCompletion, RequestSender

T = TypeVar("T")

REQUEST = Request(
    messages=(("user", "Say something about a kettle and a lantern"),),
    schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    name="test",
    max_tokens=8,
    sampling=SamplingConfig(temperature=0.5),
)


def send(endpoint: ScriptedEndpoint, log: Path | None = None, **changes: Any) -> ChatCompletion:
    async def work(sender: RequestSender) -> ChatCompletion:
        return await sender.send(REQUEST, "key")

    return with_sender(resolved(endpoint, **changes), log, work)


def probe(
    endpoint: ScriptedEndpoint, first: Form = "schema", fall_back: bool = False, **changes: Any
) -> Form:
    async def work(sender: RequestSender) -> Form:
        return await FormFinder(sender).find(first, REQUEST)

    structured = "auto" if fall_back else "schema"
    return with_sender(resolved(endpoint, structured=structured, **changes), None, work)


def with_sender(
    endpoint: ResolvedEndpoint,
    path: Path | None,
    work: Callable[[RequestSender], Awaitable[T]],
) -> T:
    """Do `work` with a sender whose log is `path`, or one that nobody looks at."""

    async def done(folder: Path) -> T:
        with RequestLog(path or folder / "log.sqlite") as log:
            said: list[str] = []
            sender = RequestSender(endpoint, AdaptiveRateLimiter(8), log, said.append)
            try:
                return await work(sender)
            finally:
                await sender.api.close()

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(done(Path(folder)))


def attempts(path: Path) -> list[Any]:
    """List the attempts that a log has: status, what went wrong, headers, seconds."""
    with sqlite3.connect(path) as db:
        return db.execute("SELECT status, detail, headers, seconds FROM attempts").fetchall()


def first(*faults: Fault) -> Any:
    """Give a fault to each of the first requests."""
    return lambda number, request: faults[number - 1] if number <= len(faults) else None


def always(fault: Fault) -> Any:
    return lambda number, request: fault


def test_a_request_carries_schema_sampling_and_seed() -> None:
    with ScriptedEndpoint() as endpoint:
        send(endpoint)
        (body,) = endpoint.requests
    assert body["response_format"]["json_schema"]["schema"] == REQUEST.schema
    assert body["response_format"]["json_schema"]["strict"] is True
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.5, REQUEST.seed, 8)
    assert "frequency_penalty" not in body


@pytest.mark.parametrize("fault", ["429", "500", "garbage"])
def test_what_a_later_attempt_may_mend_is_retried(fault: Fault) -> None:
    with ScriptedEndpoint(fault=first(fault, fault)) as endpoint:
        assert send(endpoint).outcome.status == "answer"
        assert len(endpoint.requests) == 3


def test_a_hanging_request_is_given_up_and_retried() -> None:
    with ScriptedEndpoint(fault=first("hang"), hang_s=30) as endpoint:
        start = time.monotonic()
        send(endpoint, timeout_s=0.3)
        assert time.monotonic() - start < 5


def test_retry_after_is_heeded() -> None:
    with ScriptedEndpoint(fault=first("429_after"), retry_after="0.4") as endpoint:
        start = time.monotonic()
        send(endpoint)
        assert time.monotonic() - start >= 0.4


def test_every_attempt_is_on_record_with_its_status_and_what_it_took(tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    with ScriptedEndpoint(
        fault=first("429", "garbage", "hang"),
        hang_s=30,
        headers=lambda number: {"X-Request-Id": f"r{number}", "Set-Cookie": "private"},
    ) as endpoint:
        reply = send(endpoint, log, timeout_s=0.5, price=Price(input=1.0, output=2.0))
    rows = attempts(log)
    assert [
        (status, json.loads(headers).get("x-request-id")) for status, _, headers, _ in rows
    ] == [
        (429, "r1"),
        (200, "r2"),
        (None, None),
    ]
    assert "HTTP 429" in rows[0][1]
    assert "no chat completion: HTML" in rows[1][1]
    assert "no whole reply within 0.5 s" in rows[2][1]
    assert rows[2][3] >= 0.5
    attempt = reply.attempt
    assert (attempt.status, attempt.detail, attempt.headers) == (200, "", {"x-request-id": "r4"})
    assert attempt.tokens == TokenCounts(prompt=50, completion=20)
    assert attempt.cost == pytest.approx((50 * 1.0 + 20 * 2.0) / 1e6)


def test_after_its_retries_a_request_has_failed_with_the_last_reason() -> None:
    with ScriptedEndpoint(fault=always("500")) as endpoint:
        with pytest.raises(RequestFailed, match=r"HTTP 500: .*scripted 500"):
            send(endpoint, retries=2)
        assert len(endpoint.requests) == 3


def test_a_bad_request_is_not_repeated() -> None:
    with ScriptedEndpoint(fault=always("400")) as endpoint:
        with pytest.raises(RequestFailed, match="HTTP 400"):
            send(endpoint)
        assert len(endpoint.requests) == 1


def test_a_sound_endpoint_passes_the_probe_with_one_request() -> None:
    with ScriptedEndpoint() as endpoint:
        assert probe(endpoint) == "schema"
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("fault", ["429", "500", "garbage", "hang"])
def test_one_bad_moment_does_not_fail_the_probe(fault: Fault) -> None:
    with ScriptedEndpoint(fault=first(fault), hang_s=30) as endpoint:
        assert probe(endpoint, probe_timeout_s=0.5) == "schema"


@pytest.mark.parametrize(
    ("formats", "refuses", "form"),
    [
        (("json_schema", "json_object"), False, "schema"),
        (("json_object",), True, "json"),
        (("json_object",), False, "json"),
        ((), True, "prompt"),
    ],
)
def test_an_endpoint_is_asked_in_the_strictest_form_that_it_takes(
    formats: tuple[str, ...], refuses: bool, form: Form
) -> None:
    with ScriptedEndpoint(formats=formats, refuses_formats=refuses) as endpoint:
        assert probe(endpoint, fall_back=True) == form


def test_the_form_that_was_found_before_is_tried_first() -> None:
    with ScriptedEndpoint(formats=()) as endpoint:
        assert probe(endpoint, "prompt", fall_back=True) == "prompt"
        assert len(endpoint.requests) == 1


def prose(request: Mapping[str, Any]) -> str:
    return "My favourite colour is green."


@pytest.mark.parametrize(
    ("server", "changes", "words"),
    [
        ({"key": "right"}, {}, r"refuses the key \(HTTP 401\).*api_key_env"),
        ({}, {"model": "gpt-x"}, r"has no model 'gpt-x'.*it offers scripted.*generate\.endpoint"),
        ({"reply": prose}, {}, r"ignores JSON schemas: .*'My favourite colour is green\.'"),
        ({"reply": prose}, {}, r"set generate\.endpoint\.structured: auto"),
        ({"reply": prose}, {"first": "json"}, r"does not follow JSON mode: .*'My favourite"),
        ({"reply": prose}, {"fall_back": True}, r"schema in its prompt: .*can write JSON"),
        ({"fault": always("400")}, {}, r"refused a request with a JSON schema \(HTTP 400"),
        ({"fault": always("garbage")}, {}, r"no usable reply.*base_url"),
        ({"fault": always("500")}, {}, r"no usable reply.*HTTP 500"),
        (
            {"fault": always("hang"), "hang_s": 30},
            {"probe_timeout_s": 0.3},
            r"within 0\.3 s.*probe_timeout_s",
        ),
    ],
)
def test_an_endpoint_that_cannot_serve_is_told_in_one_line_within_seconds(
    server: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with ScriptedEndpoint(**server) as endpoint:
        start = time.monotonic()
        with pytest.raises(EndpointError, match=words) as caught:
            probe(endpoint, **changes)
        assert time.monotonic() - start < 5
        said = str(caught.value)
        assert "\n" not in said
        assert f"endpoint {endpoint.base_url}" in said
        assert "sk-secret" not in said


def test_an_address_where_nobody_listens_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        ScriptedEndpoint() as endpoint,
        pytest.raises(EndpointError, match=f"127.0.0.1:{port}/v1.*no connection"),
    ):
        probe(endpoint, base_url=f"http://127.0.0.1:{port}/v1")


def test_a_key_that_the_endpoint_repeats_reaches_no_reply_error_or_attempt(tmp_path: Path) -> None:
    key = "sk-secret-0123456789"
    log = tmp_path / "log.sqlite"
    with ScriptedEndpoint(
        lambda body: {"a": f"your key is {key}"},
        fault=first("500"),
        headers=lambda number: {"X-Request-Id": key},
    ) as endpoint:
        raw, attempt, _ = send(endpoint, log)
        with pytest.raises(EndpointError) as caught:
            probe(endpoint, base_url=endpoint.base_url.replace("//", "//user:pass-word@"))
    assert "your key is [key]" in raw
    assert key not in f"{raw}{attempt}{attempts(log)}"
    said = "".join(traceback.format_exception(caught.value))
    assert key not in said
    assert "pass-word" not in str(caught.value)
