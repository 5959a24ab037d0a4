"""A Prefect API for one run, where the user has no server.

Prefect starts one by itself too, but in the run's own process group: there Ctrl-C ends the server
before the run, which then waits for it for a minute, and SIGKILL leaves it behind for good.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from core.errors import LatentQAError

HOST = "127.0.0.1"
PATIENCE = 120.0
"""Longest wait for the server, in seconds; the first one in a home makes its database."""

_UVICORN = (
    *("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
    *("--log-level", "error", "--lifespan", "on"),
)


class ServerError(LatentQAError, RuntimeError):
    """The temporary server does not come up."""


@contextlib.contextmanager
def temporary_server() -> Iterator[str]:
    """The URL of a Prefect API on a free port of this machine, which ends with the body.

    It ends with this process as well, however that ends.

    Raises:
        ServerError: it does not come up.
    """
    port = _free_port()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        server = subprocess.Popen(
            [sys.executable, *_UVICORN, "--host", HOST, "--port", str(port)],
            env={**os.environ, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        with _ended_with_us(server.pid):
            try:
                _wait_for(server, port, output)
                yield f"http://{HOST}:{port}/api"
            finally:
                _end(server)


@contextlib.contextmanager
def _ended_with_us(pid: int) -> Iterator[None]:
    """End process `pid` when this one is gone, SIGKILL included."""
    watcher = subprocess.Popen(
        # `read` returns when this process, the only one with the pipe's other end, has ended
        ["/bin/sh", "-c", f"read _; kill {pid} 2>/dev/null"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def _wait_for(server: subprocess.Popen[bytes], port: int, output: IO[str]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):  # not up yet
            connection = http.client.HTTPConnection(HOST, port, timeout=5)
            try:
                connection.request("GET", "/api/health")
                if connection.getresponse().status == 200:
                    return
            finally:
                connection.close()
        time.sleep(0.1)
    output.seek(0)
    said = output.read().strip().splitlines()
    raise ServerError(
        f"prefect: its temporary server does not come up ({said[-1] if said else 'it says nothing'}"
        "). Start one with `prefect server start` and set PREFECT_API_URL to it."
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
