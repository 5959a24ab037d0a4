"""The flows, with a Prefect server and without: what a person sees, and what is left behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pipelines.running.temporary_server import temporary_server

CHILD = Path(__file__).parent / "fake_cli.py"
STEPS = ["conversations", "questions", "dump", "train", "evaluate"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Prefect home of these tests alone, and the folder in which runs are started."""
    home = tmp_path_factory.mktemp("home")
    (home / "fake.yaml").write_text("experiment: fake\ndata: {path: .}\n")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """The API of a server that runs already."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(home).items():
            patch.setenv(name, value)
        with temporary_server() as url:
            yield url


def environment(home: Path, url: str | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "LATENTQA"))}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**kept, **quiet, "PREFECT_HOME": str(home)} | ({"PREFECT_API_URL": url} if url else {})


def start(home: Path, url: str | None, *words: str, delay: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            str(CHILD),
            str(home / "log"),
            "2",
            str(delay),
            "run",
            "fake.yaml",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment(home, url),
        start_new_session=True,
        # a shell that runs tests in the background has its children ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(home: Path, url: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    process = start(home, url, *words)
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def ask(url: str, path: str) -> Any:
    """What the server answers to a filter without conditions."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request(
            "POST", f"{parts.path}/{path}", "{}", {"Content-Type": "application/json"}
        )
        return json.loads(connection.getresponse().read())


def left_behind(home: Path) -> list[str]:
    """Command lines of processes that were started with this Prefect home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if f"PREFECT_HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def test_a_server_shows_steps_hits_and_artifacts(home: Path, server: str) -> None:
    first = run(home, server, "--json", "--root", "served")
    assert first.returncode == 0, first.stderr
    again = run(home, server, "--json", "--root", "served")
    assert [step["cached"] for step in json.loads(first.stdout)["steps"]] == [False] * 5
    assert [step["cached"] for step in json.loads(again.stdout)["steps"]] == [True] * 5

    wanted = {(step, state) for step in [*STEPS, "report"] for state in ("Completed", "Cached")}
    until = time.monotonic() + 30  # the server records task runs from events, a little later
    while time.monotonic() < until:
        tasks = ask(server, "task_runs/filter")
        if {(task["name"], task["state_name"]) for task in tasks} == wanted:
            break
        time.sleep(0.2)
    assert {(task["name"], task["state_name"]) for task in tasks} == wanted
    dump = next(t for t in tasks if t["name"] == "dump" and t["state_name"] == "Cached")
    key = json.loads(again.stdout)["steps"][2]["key"]
    assert dump["state"]["message"] == f"hit dump/{key[:16]}"

    found = ask(server, "artifacts/filter")
    artifacts = {(a["key"], a["type"]) for a in found}
    assert {(f"latentqa-fake-{step}", "table") for step in STEPS} <= artifacts
    assert ("latentqa-fake-report", "markdown") in artifacts
    assert ("latentqa-fake-dump-progress", "progress") in artifacts
    images = {a["data"] for a in found if a["key"] == "latentqa-fake-report-reading"}
    assert images == {"data:image/png;base64,iVBORw0KGgo="}


def test_a_step_that_cannot_be_made_is_one_line(home: Path, server: str) -> None:
    (home / "blocked" / "dump").mkdir(parents=True)
    (home / "blocked" / "dump").rmdir()
    (home / "blocked" / "dump").write_text("a file where a folder has to be")
    failed = run(home, server, "--root", "blocked")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("latentqa: ")


def test_a_server_that_does_not_answer_is_one_line(home: Path) -> None:
    failed = run(home, "http://127.0.0.1:9/api", "--root", "unserved")
    assert failed.returncode == 2
    assert failed.stderr == (
        "latentqa: PREFECT_API_URL=http://127.0.0.1:9/api: no Prefect server answers there "
        "(ConnectError). Start one with `prefect server start`, or unset it.\n"
    )


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_without_a_server_it_works_quietly_and_leaves_nothing_behind(home: Path) -> None:
    before = left_behind(home)
    done = run(home, None, "--root", "alone")
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stderr.splitlines()} == {*STEPS, "report"}
    assert left_behind(home) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_without_a_server_it_ends_soon_and_leaves_nothing_behind(
    home: Path, how: signal.Signals
) -> None:
    before = left_behind(home)
    process = start(home, None, "--root", f"stopped-{how.name}", delay=60)
    assert process.stderr is not None
    assert "runs" in process.stderr.readline()
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    _, told = process.communicate(timeout=20)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        assert told == "Stopped. Finished work is kept; run again to go on.\n"
    until = time.monotonic() + 15
    while left_behind(home) != before and time.monotonic() < until:
        time.sleep(0.1)
    assert left_behind(home) == before
