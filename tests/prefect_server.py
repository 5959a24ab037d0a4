"""A Prefect server of a test's own, for as long as a context lasts."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
PATIENCE_S = 600.0
"""Longest wait for the server; the first one in a home makes its database."""
_UVICORN = (
    *("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
    *("--log-level", "error", "--lifespan", "on"),
)


@contextlib.contextmanager
def prefect_server(home: Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Yield the URL of a Prefect API on a free port and its process, which ends with the body.

    `settings` are environment variables beside those of this one.
    """
    port = free_port()
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    own = {"PREFECT_HOME": str(home), "PREFECT_UI_ENABLED": "0"}
    server = subprocess.Popen(
        [sys.executable, *_UVICORN, "--host", HOST, "--port", str(port)],
        env={**os.environ, **quiet, **own, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(server, port)
        yield f"http://{HOST}:{port}/api", server
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    """Find a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        assert server.poll() is None, "the Prefect server has ended"
        with contextlib.suppress(OSError, http.client.HTTPException):  # not up yet
            connection = http.client.HTTPConnection(HOST, port, timeout=5)
            try:
                connection.request("GET", "/api/health")
                if connection.getresponse().status == 200:
                    return
            finally:
                connection.close()
        time.sleep(0.1)
    raise AssertionError("the Prefect server does not come up")
