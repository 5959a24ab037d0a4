"""How much of an endpoint's throughput the client gets, what a request costs it, and its memory.

The endpoint is a lean server of our own in another process: so many slots, each reply after so many
seconds. What it can give is slots / latency. For each number of requests a new process asks them
all through an empty log, and another one asks them again, from the log alone.

    python benchmarks/requests.py --out FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from generators.asking import Asker
from generators.endpoint import ResolvedEndpoint
from generators.generate_config import SamplingConfig
from generators.llm_request import Request
from generators.request_log import RequestLog
from generators.structured import PROBE_REPLY

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


async def serve(slots: int, latency_s: float, told: Connection) -> None:
    """Answer every request in the same words, until the process is ended."""
    free = asyncio.Semaphore(slots)

    def body(content: dict[str, str]) -> bytes:
        message = {"role": "assistant", "content": json.dumps(content)}
        usage = {"prompt_tokens": 250, "completion_tokens": 60}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        made = json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(made)}\r\n\r\n".encode() + made

    answer, probe = body({"text": TEXT}), body(PROBE_REPLY)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                asked = await reader.readexactly(length)
                async with free:
                    await asyncio.sleep(latency_s)
                writer.write(probe if b'"latentqa"' in asked else answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=1024)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def start_server(slots: int, latency_s: float, told: Connection) -> None:
    """The server's process."""
    asyncio.run(serve(slots, latency_s, told))


def ask(port: int, log: Path, count: int, concurrency: int, told: Connection) -> None:
    """A client's process: ask `count` requests through `log` and report."""
    endpoint = ResolvedEndpoint(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", model="m", identity="m"
    )
    requests = [
        Request(
            messages=(("system", INSTRUCTION), ("user", f"Text number {number}")),
            schema=SCHEMA,
            name="text",
            max_tokens=80,
            sampling=SamplingConfig(),
        )
        for number in range(count)
    ]

    async def work() -> None:
        with RequestLog(log) as replies:
            asker = Asker(endpoint, replies, concurrency)
            try:
                outcomes = await asker.ask_all(requests)
            finally:
                await asker.close()
        assert all(outcome.status == "answer" for outcome in outcomes)

    start, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    told.send(
        Measured(requests=count, seconds=seconds, cpu_ms=1000 * cpu / count, memory_mb=memory)
    )


def measured(port: int, log: Path, count: int, concurrency: int) -> Measured:
    """Report of a process that asks."""
    hear, tell = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=ask, args=(port, log, count, concurrency, tell))
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
    panels = {
        "share of the endpoint's throughput": [a.requests / a.seconds / most for a, _ in rows],
        "client CPU a request (ms)": [asked.cpu_ms for asked, _ in rows],
        "resident memory (MB)": [asked.memory_mb for asked, _ in rows],
        "resume, all from the log (s)": [again.seconds for _, again in rows],
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.2))
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        axis.plot(counts, values, marker="o")
        axis.set(title=title, xlabel="requests", xscale="log", ylim=(0, 1.15 * max(values)))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print a Markdown table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 3000, 10_000, 20_000])
    parser.add_argument("--slots", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--concurrency", type=int, default=256, help="most requests at once")
    parser.add_argument("--out", type=Path, help="folder of requests.png")
    words = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    hear, tell = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(
        target=start_server, args=(words.slots, words.latency, tell), daemon=True
    )
    server.start()
    port, most = hear.recv(), words.slots / words.latency
    print(f"The endpoint: {words.slots} slots, {words.latency:g} s a reply: {most:,.0f} a second\n")
    print("| requests | a second | share | CPU a request | memory | resume |")
    print("|---|---|---|---|---|---|")
    rows = []
    for count in words.requests:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "requests.sqlite"
            asked = measured(port, log, count, words.concurrency)
            again = measured(port, log, count, words.concurrency)
        rows.append((asked, again))
        rate = count / asked.seconds
        print(
            f"| {count:,} | {rate:,.0f} | {rate / most:.0%} | {asked.cpu_ms:.2f} ms "
            f"| {asked.memory_mb:.0f} MB | {again.seconds:.2f} s |",
            flush=True,
        )
    if words.out is not None:
        words.out.mkdir(parents=True, exist_ok=True)
        plot(words.out / "requests.png", rows, most)
    server.terminate()


if __name__ == "__main__":
    main()
