"""Throughput of the LLM client relative to openai's own, CPU time per request, and memory.

The endpoint is a lean server of our own in another process: so many slots, each reply after so many
seconds. The peer is openai's client in a bare loop: as many tasks behind a semaphore as there are
slots, each sending the same body, with the same transport and no retries, log, budget or schema
check. Peer and client take turns in the same run, each in a new process; their ratio is told with
everything in it from opening the log to closing it: the trial request, connections, and the rise of
the requests under way. A last process asks the same requests again, from the log alone.

    python benchmarks/llm_requests.py --out docs/images
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from core.processes.task_pool import call_apart
from generators.llm.cached_client import LLMClient
from generators.llm.chat.dialect import ChatDialect
from generators.llm.chat.request import Request
from generators.llm.chat.structured import PROBE_REPLY
from generators.llm.endpoint.config import SamplingConfig
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.log.request_log import RequestLog

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
INSTRUCTION = "You write one short text about what you are asked. " * 20
TEXT = "A lantern stands in the window of the old house by the harbour. " * 4


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process that asked `requests` requests.

    Attributes:
        seconds: wall time of asking.
        cpu_ms: CPU milliseconds a request.
        memory_mb: highest resident memory, in MB.
    """

    requests: int
    seconds: float
    cpu_ms: float
    memory_mb: float

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.requests / self.seconds


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Peer and client against an endpoint of one latency."""

    latency_s: float
    peer: list[Measured]
    client: list[Measured]
    again: Measured

    @property
    def ratio(self) -> float:
        """Median of the client's rate over the peer's of the same turn."""
        pairs = zip(self.client, self.peer, strict=True)
        return statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)


def http_reply(content: dict[str, str]) -> bytes:
    """Write the whole response with a completion of `content`."""
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
    """Serve in a process of its own, which tells its port and ends when it is ended."""

    async def work() -> None:
        free = Slots(slots, latency_s)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Serving(free), "127.0.0.1", 0, backlog=1024)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(work())


def ask_bare(port: int, count: int, slots: int) -> Measured:
    """Ask `count` requests with openai's client alone, behind a semaphore."""
    # a benchmark compares with the library itself: elsewhere it is imported in one file
    from openai import AsyncOpenAI, DefaultAioHttpClient

    endpoint = _endpoint(port)
    dialect = ChatDialect.of(endpoint)

    async def work() -> None:
        semaphore = asyncio.Semaphore(slots)
        async with AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key="none",
            max_retries=0,
            http_client=DefaultAioHttpClient(trust_env=False),
        ) as client:

            async def one(number: int) -> None:
                body: dict[str, Any] = dialect.body(_request(number), endpoint)
                async with semaphore:
                    reply = await client.chat.completions.create(**body)
                assert reply.choices[0].message.content

            await asyncio.gather(*(one(number) for number in range(count)))

    return _measured(count, work)


def ask(port: int, log: Path, count: int, slots: int) -> Measured:
    """Ask `count` requests through `log` with our client."""
    requests = [_request(number) for number in range(count)]

    async def work() -> None:
        with RequestLog(log) as replies:
            client = LLMClient(_endpoint(port), replies, slots)
            try:
                outcomes = await client.complete_all(requests)
            finally:
                await client.close()
        assert all(outcome.status == "answer" for outcome in outcomes)

    return _measured(count, work)


def _measured(count: int, work: Callable[[], Any]) -> Measured:
    start, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Measured(
        requests=count,
        seconds=seconds,
        cpu_ms=1000 * cpu / count,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
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


def compare(latency_s: float, slots: int, rounds: int, repeats: int) -> Compared:
    """Let peer and client take turns against a server of that latency."""
    hear, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(slots, latency_s, tell), daemon=True)
    server.start()
    asked = {"port": hear.recv(), "count": slots * rounds, "slots": slots}
    peer, client = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            log = Path(folder) / f"{turn}.sqlite"
            peer.append(call_apart(ask_bare, asked))
            client.append(call_apart(ask, {**asked, "log": log}))
        again = call_apart(ask, {**asked, "log": log})
    server.terminate()
    return Compared(latency_s=latency_s, peer=peer, client=client, again=again)


def plot(path: Path, rows: list[Compared]) -> None:
    """Draw throughput, CPU and memory of peer and client against the latency, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    values: dict[str, Callable[[Measured], float]] = {
        "replies a second": lambda one: one.rate,
        "CPU a request (ms)": lambda one: one.cpu_ms,
        "resident memory (MB)": lambda one: one.memory_mb,
    }
    figure, axes = pyplot.subplots(1, len(values), figsize=(4 * len(values), 3.2))
    places = range(len(rows))
    for axis, (title, value) in zip(axes, values.items(), strict=True):
        for shift, (name, found) in enumerate(
            {"openai's client": [r.peer for r in rows], "ours": [r.client for r in rows]}.items()
        ):
            heights = [statistics.median(map(value, one)) for one in found]
            axis.bar([place + 0.4 * shift for place in places], heights, 0.35, label=name)
        axis.set(title=title, xlabel="latency of a reply")
        axis.set_xticks([place + 0.2 for place in places], [f"{r.latency_s:g} s" for r in rows])
    axes[0].legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print a Markdown table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.5, 2.0], help="seconds")
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=60, help="requests a slot")
    parser.add_argument("--repeats", type=int, default=2, help="turns of peer and client")
    parser.add_argument("--out", type=Path, help="folder of requests.png")
    words = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    print("| latency | requests | peer | ours | ours / peer | CPU peer, ours | memory | resume |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for latency_s in words.latency:
        row = compare(latency_s, words.slots, words.rounds, words.repeats)
        rows.append(row)
        peer, ours = (
            statistics.median(one.rate for one in found) for found in (row.peer, row.client)
        )
        cpu_peer, cpu_ours = (
            statistics.median(one.cpu_ms for one in found) for found in (row.peer, row.client)
        )
        print(
            f"| {latency_s:g} s | {row.again.requests:,} | {peer:,.0f} / s | {ours:,.0f} / s "
            f"| {row.ratio:.0%} | {cpu_peer:.2f} ms, {cpu_ours:.2f} ms "
            f"| {max(one.memory_mb for one in row.client):.0f} MB | {row.again.seconds:.2f} s |",
            flush=True,
        )
    if words.out is not None:
        words.out.mkdir(parents=True, exist_ok=True)
        plot(words.out / "requests.png", rows)


if __name__ == "__main__":
    main()
