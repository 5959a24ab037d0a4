"""The lean HTTP connection against a server that says exactly the bytes it is told to."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from generators.llm.http_line import Answer, HttpLines, NoAnswer

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"


class Said:
    """What came in, and over how many connections."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0


def against(
    replies: Sequence[tuple[bytes, bool]], work: Callable[[HttpLines], Awaitable[list[Answer]]]
) -> tuple[list[Answer], Said]:
    """`work` against a server of these replies, each with whether the connection ends after it."""
    said = Said()
    left = iter(replies)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
                said.heads.append(head)
                said.bodies.append(await reader.readexactly(length))
                data, ends = next(left)
                for start in range(0, len(data), 7):  # in pieces, cut anywhere
                    writer.write(data[start : start + 7])
                    await asyncio.sleep(0)
                if ends:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def both() -> list[Answer]:
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        lines = HttpLines(f"http://127.0.0.1:{port}/v1/x?y=1", {"A": "b"}, connect_s=5)
        try:
            return await work(lines)
        finally:
            lines.close()
            server.close()
            await server.wait_closed()

    return asyncio.run(both()), said


async def two(lines: HttpLines) -> list[Answer]:
    return [await lines.post(b"one"), await lines.post(b"two")]


def test_one_connection_serves_one_request_after_the_other() -> None:
    answers, said = against([(PLAIN, False)] * 2, two)
    assert [(a.status, a.body) for a in answers] == [(200, b"hi")] * 2
    assert (said.bodies, said.connections) == ([b"one", b"two"], 1)
    assert said.heads[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nA: b\r\n" in said.heads[0]


@pytest.mark.parametrize(
    ("reply", "ends"),
    [
        (CHUNKED, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", True),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", True),
    ],
    ids=["chunked", "announced", "closing", "until closed"],
)
def test_every_way_to_end_a_reply_is_understood(reply: bytes, ends: bool) -> None:
    answers, said = against([(reply, ends)] * 2, two)
    assert [(a.status, a.body) for a in answers] == [(200, b"hi")] * 2
    assert said.connections == (2 if ends else 1)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "closed before the reply was whole"),
        (b"", "closed before the reply was whole"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
    ],
)
def test_half_a_reply_is_none(reply: bytes, words: str) -> None:
    async def work(lines: HttpLines) -> list[Answer]:
        with pytest.raises(NoAnswer, match=words) as caught:
            await lines.post(b"one")
        assert not caught.value.gone
        return [await lines.post(b"two")]

    answers, said = against([(reply, True), (PLAIN, False)], work)
    assert answers[0].body == b"hi"
    assert said.connections == 2


def test_after_a_time_out_the_connection_is_not_used_again() -> None:
    async def work(lines: HttpLines) -> list[Answer]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await lines.post(b"one")
        return [await lines.post(b"two")]

    # half of a reply: what is missing of it could come before the next one
    answers, said = against([(PLAIN[:10], False), (PLAIN, False)], work)
    assert answers[0].body == b"hi"
    assert said.connections == 2


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        HttpLines("http://localhost/", {"Authorization": "Bearer a\r\nX: y"}, connect_s=1)
