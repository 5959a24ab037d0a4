"""How much of an endpoint's throughput the client gets, what a request costs it, and its memory.

The endpoint is a lean server of our own in another process: so many slots, each reply after so many
seconds. What it can give is measured in the same run, by a bare client that writes the same bytes
over and over and counts bytes, from its second round on; slots / latency bounds it. For each number
of requests a new process asks them all through an empty log, and another one asks them again, from
the log alone.

Two shares of what the endpoint can give are told. That of the whole run has everything in it from
opening the log to closing it: the trial request, connections, and the rise of the requests under
way from 16, which take most of a short run. The steady one is of the time between, as it was seen:
from the reply at which as many requests are allowed under way as there are slots, to the one after
which fewer requests are left than slots; where that is under a second, nothing is told.

    python benchmarks/llm_requests.py --out docs/images
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from generators.llm.chat_body import chat_body
from generators.llm.client import LLMClient
from generators.llm.config import SamplingConfig
from generators.llm.endpoint import ResolvedEndpoint
from generators.llm.rate_limiter import START
from generators.llm.request import Request
from generators.llm.request_log import RequestLog
from generators.llm.structured import PROBE_REPLY

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
INSTRUCTION = "You write one short text about what you are asked. " * 20
TEXT = "A lantern stands in the window of the old house by the harbour. " * 4
BARE = 20_000
"""Requests of the bare client."""
STEADY_S = 1.0
"""Shortest steady part whose rate says something: ten rounds of replies, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process that asked `requests` requests.

    Attributes:
        seconds: wall time of asking.
        steady: replies a second in the steady part; None where that was too short.
        cpu_ms: CPU milliseconds a request.
        memory_mb: highest resident memory, in MB.
    """

    requests: int
    seconds: float
    steady: float | None
    cpu_ms: float
    memory_mb: float


def http_reply(content: dict[str, str]) -> bytes:
    """The whole response with a completion of `content`."""
    message = {"role": "assistant", "content": json.dumps(content)}
    usage = {"prompt_tokens": 250, "completion_tokens": 60}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    made = json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(made)}\r\n\r\n".encode() + made


ANSWER, PROBED = http_reply({"text": TEXT}), http_reply(PROBE_REPLY)


class Slots:
    """So many replies are being made at once; the others wait for a slot."""

    def __init__(self, slots: int, latency_s: float) -> None:
        self._free = slots
        self._latency_s = latency_s
        self._waiting: deque[tuple[asyncio.Transport, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    def reply(self, to: asyncio.Transport, data: bytes) -> None:
        """Reply as soon as a slot is free and its time has passed."""
        if self._free:
            self._free -= 1
            self._loop.call_later(self._latency_s, self._done, to, data)
        else:
            self._waiting.append((to, data))

    def _done(self, to: asyncio.Transport, data: bytes) -> None:
        self._free += 1
        if self._waiting:
            self.reply(*self._waiting.popleft())
        to.write(data)


class Serving(asyncio.Protocol):
    """The server's end of a connection."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._had = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Reply to each request as soon as it is whole."""
        self._had += data
        head, found, body = self._had.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._had = b""
            self._slots.reply(self._transport, PROBED if b'"latentqa"' in body else ANSWER)


def serve(slots: int, latency_s: float, told: Connection) -> None:
    """The server's process: it tells its port, and ends when it is ended."""

    async def work() -> None:
        free = Slots(slots, latency_s)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Serving(free), "127.0.0.1", 0, backlog=1024)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


class Bare(asyncio.Protocol):
    """A connection that writes the same request again as soon as as many bytes have come back."""

    def __init__(self, request: bytes, left: Iterator[int], came: list[float]) -> None:
        self._request = request
        self._left = left
        self._came = came
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Go on."""
        self._bytes += len(data)
        if self._bytes == len(ANSWER):
            self._bytes = 0
            self._came.append(time.perf_counter())
            if next(self._left, None) is not None:
                self._transport.write(self._request)


def give(port: int, count: int, concurrency: int, told: Connection) -> None:
    """The bare client's process: tells how many replies a second it had."""
    endpoint = _endpoint(port)
    body = chat_body(_request(0), endpoint)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    async def work() -> float:
        came: list[float] = []
        left = iter(range(count))
        loop = asyncio.get_running_loop()
        for _ in range(concurrency):
            await loop.create_connection(
                lambda: Bare(head.encode() + body, left, came), "127.0.0.1", port
            )
        while len(came) < count:
            await asyncio.sleep(0.1)
        return (count - concurrency) / (came[count - 1] - came[concurrency - 1])

    told.send(asyncio.run(work()))


def ask(port: int, log: Path, count: int, concurrency: int, slots: int, told: Connection) -> None:
    """A client's process: ask `count` requests through `log` and report."""
    requests = [_request(number) for number in range(count)]
    full: list[tuple[float, int]] = []  # when so many replies were there, with all slots in use

    async def work() -> None:
        done = 0

        def heard(more: int) -> None:
            nonlocal done
            done += more
            if client.limit >= slots and count - done >= slots:
                full.append((time.perf_counter(), done))
                del full[1:-1]  # the first and the last will do

        with RequestLog(log) as replies:
            client = LLMClient(_endpoint(port), replies, concurrency)
            try:
                outcomes = await client.complete_all(requests, heard)
            finally:
                await client.close()
        assert all(outcome.status == "answer" for outcome in outcomes)

    start, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    steady = None
    if full and full[-1][0] - full[0][0] >= STEADY_S:
        (begin, first), (end, last) = full
        steady = (last - first) / (end - begin)
    told.send(
        Measured(
            requests=count,
            seconds=seconds,
            steady=steady,
            cpu_ms=1000 * cpu / count,
            memory_mb=memory,
        )
    )


def _endpoint(port: int) -> ResolvedEndpoint:
    return ResolvedEndpoint(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", model="m", identity="m"
    )


def _request(number: int) -> Request:
    return Request(
        messages=(("system", INSTRUCTION), ("user", f"Text number {number}")),
        schema=SCHEMA,
        name="text",
        max_tokens=80,
        sampling=SamplingConfig(),
    )


def reported(target: object, *arguments: object) -> object:
    """What a process of `target` tells."""
    hear, tell = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=target, args=(*arguments, tell))  # type: ignore[arg-type]
    process.start()
    tell.close()
    report = hear.recv()
    process.join()
    return report


def plot(path: Path, rows: list[tuple[Measured, Measured]], most: float) -> None:
    """Throughput's share, CPU, memory and resume against the number of requests, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [asked.requests for asked, _ in rows]
    shares = {
        "whole run": [asked.requests / asked.seconds / most for asked, _ in rows],
        "steady part": [(asked.steady or math.nan) / most for asked, _ in rows],
    }
    panels = {
        "share of the endpoint's throughput": shares,
        "client CPU a request (ms)": {"": [asked.cpu_ms for asked, _ in rows]},
        "resident memory (MB)": {"": [asked.memory_mb for asked, _ in rows]},
        "resume, all from the log (s)": {"": [again.seconds for _, again in rows]},
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.2))
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, values in lines.items():
            axis.plot(counts, values, marker="o", label=name)
        highest = max(value for values in lines.values() for value in values if value > 0)
        axis.set(title=title, xlabel="requests", xscale="log", ylim=(0, 1.15 * highest))
    axes[0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print a Markdown table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 10_000, 50_000, 200_000])
    parser.add_argument("--slots", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--concurrency", type=int, default=256, help="most requests at once")
    parser.add_argument("--out", type=Path, help="folder of requests.png")
    words = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    hear, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(
        target=serve, args=(words.slots, words.latency, tell), daemon=True
    )
    server.start()
    port = hear.recv()
    given = reported(give, port, BARE, words.concurrency)
    assert isinstance(given, float)
    print(
        f"The endpoint: {words.slots} slots, {words.latency:g} s a reply, so at most "
        f"{words.slots / words.latency:,.0f} a second; it gives a bare client {given:,.0f}.\n"
    )
    print(
        "Shares of that: of the whole run, with the trial request, connections and the rise from "
        f"{START} requests under way; and of its steady part, from when as many are allowed under "
        "way as there are slots until fewer are left than slots (– where that is under a second).\n"
    )
    print("| requests | a second | whole run | steady part | CPU a request | memory | resume |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for count in words.requests:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "requests.sqlite"
            asked = reported(ask, port, log, count, words.concurrency, words.slots)
            again = reported(ask, port, log, count, words.concurrency, words.slots)
        assert isinstance(asked, Measured)
        assert isinstance(again, Measured)
        rows.append((asked, again))
        rate = count / asked.seconds
        print(
            f"| {count:,} | {rate:,.0f} | {rate / given:.0%} "
            f"| {f'{asked.steady / given:.0%}' if asked.steady else '–'} | {asked.cpu_ms:.2f} ms "
            f"| {asked.memory_mb:.0f} MB | {again.seconds:.2f} s |",
            flush=True,
        )
    if words.out is not None:
        words.out.mkdir(parents=True, exist_ok=True)
        plot(words.out / "requests.png", rows, given)
    server.terminate()


if __name__ == "__main__":
    main()
