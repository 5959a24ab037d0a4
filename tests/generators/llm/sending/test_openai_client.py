"""The API over real sockets: slow replies, proxies, addresses with a query, compressed bodies."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from endpoint_kinds import good

from core.errors import EndpointError
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.sending.openai_client import EndpointApi, HttpResponse, NoResponseError

BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "hello"}],
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": {}}}},
}


class Heard:
    """A server that answers every POST as `write` does; `lines` has the requests' first lines."""

    def __init__(self, write: Any) -> None:
        self.lines: list[str] = []
        self.headers: list[dict[str, str]] = []
        heard = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                heard.lines.append(self.path)
                heard.headers.append({k.lower(): v for k, v in self.headers.items()})
                self.rfile.read(int(self.headers["Content-Length"]))
                with contextlib.suppress(OSError):
                    write(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Write no log on stderr."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]


@contextlib.contextmanager
def serving(write: Any) -> Iterator[Heard]:
    heard = Heard(write)
    thread = threading.Thread(target=heard.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield heard
    finally:
        heard.server.shutdown()
        thread.join()
        heard.server.socket.close()


def send(data: bytes, **headers: str) -> Any:
    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return write


def chat(base_url: str, timeout_s: float = 5, key: str = "none") -> HttpResponse:
    async def work() -> HttpResponse:
        api = EndpointApi(ResolvedEndpoint(base_url=base_url, api_key=key, model="m", identity="m"))
        try:
            return await api.complete(BODY, timeout_s)
        finally:
            await api.close()

    return asyncio.run(work())


COMPLETION = json.dumps(good(BODY, "hi")).encode()


def test_a_time_out_counts_the_whole_reply_and_not_each_read() -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)

    with serving(drip) as heard:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            chat(f"http://127.0.0.1:{heard.port}/v1", timeout_s=0.6)
        assert time.monotonic() - start < 5


def test_the_query_of_an_address_goes_with_every_request() -> None:
    with serving(send(COMPLETION)) as heard:
        at = f"http://127.0.0.1:{heard.port}/openai/deployments/gpt?api-version=2024-06-01"
        assert chat(at).status == 200
    assert heard.lines == ["/openai/deployments/gpt/chat/completions?api-version=2024-06-01"]


def test_user_and_password_of_an_address_are_sent_where_there_is_no_key() -> None:
    with serving(send(COMPLETION)) as heard:
        chat(f"http://me:word@127.0.0.1:{heard.port}/v1")
        chat(f"http://me:word@127.0.0.1:{heard.port}/v1", key="sk-1")
    assert [one["authorization"] for one in heard.headers] == ["Basic bWU6d29yZA==", "Bearer sk-1"]


def test_what_the_environment_holds_for_openai_goes_to_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-hush")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-hush")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Own: hush\nAuthorization: Bearer hush")
    with serving(send(COMPLETION)) as heard:
        chat(f"http://127.0.0.1:{heard.port}/v1", key="sk-1")
    assert "hush" not in str(heard.headers)
    assert heard.headers[0]["authorization"] == "Bearer sk-1"


def test_an_address_that_no_host_can_have_is_one_line() -> None:
    with pytest.raises(EndpointError, match=r"cannot be asked at this address.*base_url"):
        chat("http://\u2603/v1")


def test_a_proxy_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "foo://me:hush@proxy:1")
    with pytest.raises(EndpointError, match="through the proxy of this environment") as caught:
        chat("http://somewhere.invalid/v1")
    assert "hush" not in str(caught.value)


def test_a_proxy_of_the_environment_is_used_for_the_outside_world_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(send(COMPLETION)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert chat("http://somewhere.invalid/v1").body == COMPLETION
        assert proxy.lines == ["http://somewhere.invalid/v1/chat/completions"]
        with serving(send(COMPLETION)) as here:
            assert chat(f"http://127.0.0.1:{here.port}/v1").status == 200
            assert chat(f"http://localhost:{here.port}/v1").status == 200
        assert len(proxy.lines) == 1
        monkeypatch.setenv("NO_PROXY", "somewhere.invalid")
        with pytest.raises(NoResponseError) as caught:
            chat("http://somewhere.invalid/v1")
        assert caught.value.unreachable
        assert len(proxy.lines) == 1


def test_a_compressed_reply_is_read() -> None:
    with serving(send(gzip.compress(COMPLETION), Content_Encoding="gzip")) as heard:
        assert chat(f"http://127.0.0.1:{heard.port}/v1").body == COMPLETION


def test_a_reply_that_cannot_be_decompressed_is_told_as_that() -> None:
    with (
        serving(send(b"no gzip at all", Content_Encoding="gzip")) as heard,
        pytest.raises(NoResponseError, match="cannot be decompressed"),
    ):
        chat(f"http://127.0.0.1:{heard.port}/v1")


@pytest.mark.parametrize("status", [200, 400])
def test_a_reply_without_end_is_given_up(status: int) -> None:
    bomb = gzip.compress(bytes(1 << 26), 9)

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(bomb)))
        handler.end_headers()
        handler.wfile.write(bomb)

    with serving(write) as heard, pytest.raises(NoResponseError, match=r"has more than 16\.8 MB"):
        chat(f"http://127.0.0.1:{heard.port}/v1")


def test_a_connection_that_ends_in_the_middle_is_no_response() -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(COMPLETION[:20])
        handler.close_connection = True

    with serving(cut) as heard, pytest.raises(NoResponseError) as caught:
        chat(f"http://127.0.0.1:{heard.port}/v1")
    assert not caught.value.unreachable
    assert str(caught.value)


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500])
def test_a_response_of_any_status_comes_as_it_is(status: int) -> None:
    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", "http://elsewhere/v1")
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"no")

    with serving(write) as heard:
        response = chat(f"http://127.0.0.1:{heard.port}/v1")
    assert (response.status, response.body) == (status, b"no")
    assert response.headers["location"] == "http://elsewhere/v1"
    assert len(heard.lines) == 1
