"""The embedded generator: a small instruct model behind an OpenAI-compatible server of our own.

The server (`xllamacpp`) runs in a child process on 127.0.0.1, at a port that the system picks and
under a key drawn for this one run. Model and torch never share a process, nor work at the same
time: on few cores each would starve the other, so leave the context before torch starts.

The child ends with its parent, however the parent ends: it watches the pipe that the parent holds
open, and its parent's process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import EndpointError

SLOTS = 4
"""Requests that the server works on at once; more only wait."""
CONTEXT_TOKENS = 2048
"""Tokens of prompt and reply together in one slot."""
ALIAS = "smollm2-135m-instruct"
"""The name under which the server offers its model."""
_START_SECONDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedServer:
    """Where a running server listens.

    Attributes:
        base_url: `http://127.0.0.1:PORT/v1`.
        api_key: the key of this one run.
        model: the name to ask for.
        pid: process id of the child.
    """

    base_url: str
    api_key: str = field(repr=False)
    model: str = ALIAS
    pid: int


@contextlib.contextmanager
def embedded_server(gguf: Path, *, threads: int | None = None) -> Iterator[EmbeddedServer]:
    """Serve the GGUF file `gguf` for as long as the context lasts.

    Args:
        gguf: weights, with their tokenizer and chat template.
        threads: CPU threads; null takes every CPU this process may use.

    Raises:
        EndpointError: the package `xllamacpp` is missing, or the server did not come up; the text
            has its last words.
    """
    key = secrets.token_urlsafe(24)
    order = {
        "gguf": str(gguf),
        "key": key,
        "threads": threads or _cpus(),
        "parent": os.getpid(),
    }
    with tempfile.TemporaryFile() as words:
        # the order goes through the pipe, not the command line, where `ps` would show the key
        child = subprocess.Popen(
            [sys.executable, "-m", "generators.llm.endpoint.embedded_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            # the child finds this package wherever the parent found it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(order).encode() + b"\n")
                child.stdin.flush()
            ready, _, _ = select.select([child.stdout], [], [], _START_SECONDS)
            line = child.stdout.readline() if ready else b""
            if not line:
                words.seek(0)
                said = words.read().decode(errors="replace").strip().splitlines()
                raise EndpointError(
                    f"embedded generator ({gguf.name}): the server did not start"
                    f"{': ' + said[-1] if said else ''}. Check that `pip install latentqa[local]` "
                    "and `latentqa setup embedded` have run, or set generate.endpoint."
                )
            yield EmbeddedServer(
                base_url=json.loads(line)["address"].rstrip("/") + "/v1",
                api_key=key,
                pid=child.pid,
            )
        finally:
            # nothing in the server is worth a graceful end, and its own takes seconds
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()


def _cpus() -> int:
    # only Linux tells how many of its CPUs are this process's to use
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve() -> None:
    """Serve as the child: read the order, report the address, and wait for the parent's end."""
    order = json.loads(sys.stdin.readline())
    report = os.dup(1)
    os.dup2(2, 1)  # the server's own words go where stderr goes, the report alone to the parent
    _watch(order["parent"])

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order["gguf"]
    params.model_alias = {ALIAS}
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_TOKENS * SLOTS
    params.cpuparams.n_threads = order["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.offline = True
    params.cache_ram_mib = 256
    params.api_keys = [order["key"]]
    server = xllamacpp.Server(params)
    os.write(report, json.dumps({"address": server.listening_address}).encode() + b"\n")
    os.close(report)
    threading.Event().wait()


def _watch(parent: int) -> None:
    def wait() -> None:
        while os.getppid() == parent:
            ended, _, _ = select.select([0], [], [], 1.0)
            if ended and not os.read(0, 1):
                break
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _serve()
