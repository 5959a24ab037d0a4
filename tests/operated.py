"""Programs beside a Prefect server of a test's own: start, ask, wait, stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 900.0


def environment(home: Path, url: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "LATENTQA"))}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    # a run that is due is looked for every second
    soon = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    own = {"PREFECT_HOME": str(home), "PREFECT_API_URL": url, **soon}
    return {**kept, **quiet, **own}


def start(home: Path, url: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a Python program in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=home,
        env=environment(home, url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # the tests may be a background job of a shell, and such a job's children ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def ask(url: str, method: str, path: str, body: Any = None) -> Any:
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=30)) as connection:
        text = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        connection.request(method, f"{parts.path}/{path}", text, headers)
        return json.loads(connection.getresponse().read())


def wait_for(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Return what `what` returns as soon as that is true."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.3)
    raise AssertionError("not in time")


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    process.wait(60)


def firings(root: Path) -> list[dict[str, Any]]:
    paths = sorted((root / "schedules" / "sheets").glob("*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    return [one for one in found if one["finished"]]


def flow_states(url: str, name: str) -> list[str]:
    """Return the names of the states of a flow's runs that began, oldest first."""
    wanted = {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC"}
    runs = ask(url, "POST", "flow_runs/filter", wanted)
    return [run["state"]["name"] for run in runs if run["start_time"]]
