"""Runs on a Prefect server, with one that is lost, and without any."""

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
from forks import Forked, ForkServer, fork_server
from prefect_server import free_port, prefect_server

CHILD = Path(__file__).parent / "fake_cli.py"
PATIENCE_S = 600.0
pytestmark = pytest.mark.timeout(900)
STEPS = ["conversations", "questions", "dump", "train", "evaluate"]
TWO_PROCESSES = ("--set", "runtime.workers=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Prefect home of these tests alone, in which runs are started."""
    home = tmp_path_factory.mktemp("home")
    (home / "fake.yaml").write_text("experiment: fake\ndata: {path: .}\n")
    return home


@pytest.fixture(scope="module")
def server_process(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server, and yield the URL of its API and its process."""
    with prefect_server(home) as made:
        yield made


@pytest.fixture(scope="module")
def server(server_process: tuple[str, subprocess.Popen[bytes]]) -> str:
    """Return the URL of the server's API."""
    return server_process[0]


@pytest.fixture(scope="module")
def forks(home: Path, server: str) -> Iterator[ForkServer]:
    """Start a process with Prefect in it, configured for the server, which forks runs."""
    with fork_server(home / "forks", environment(home, server), "flows", "fake_steps") as made:
        yield made


def environment(home: Path, url: str | None = None, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "LATENTQA"))}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    own = {"PREFECT_HOME": str(home)} | ({"PREFECT_API_URL": url} if url else {})
    return {**kept, **quiet, **own, **more}


def command(home: Path, *words: str, delay: float = 0.0) -> list[str]:
    """Return a script's words that run the fake steps in two pieces of `delay` seconds."""
    return [str(CHILD), str(home / "log"), "2", str(delay), "run", "fake.yaml", *words]


def start(
    forks: ForkServer, home: Path, url: str | None, *words: str, delay: float = 0.0, **more: str
) -> Forked:
    own = environment(home, url, **more)
    return forks.start(*command(home, *words, delay=delay), cwd=home, env=own)


def run(
    forks: ForkServer, home: Path, url: str, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    process = start(forks, home, url, *words, delay=0.0, **more)
    out, err = process.communicate(PATIENCE_S)
    assert process.returncode is not None
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def run_anew(
    home: Path, url: str | None, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run in a new Python, which reads Prefect's settings for itself."""
    own = environment(home, url, **more)
    whole = [sys.executable, *command(home, *words)]
    return subprocess.run(whole, capture_output=True, text=True, cwd=home, env=own)


def ask(url: str, path: str) -> Any:
    """Return what the server answers to a filter without conditions."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request(
            "POST", f"{parts.path}/{path}", "{}", {"Content-Type": "application/json"}
        )
        return json.loads(connection.getresponse().read())


@pytest.fixture(scope="module")
def first(forks: ForkServer, home: Path, server: str) -> subprocess.CompletedProcess[str]:
    """Run everything once, with two processes of a pool; progress is shown at once."""
    (home / "log.progress").touch()
    done = run(forks, home, server, "--json", "--root", "served", *TWO_PROCESSES)
    (home / "log.progress").unlink()
    assert done.returncode == 0, done.stderr
    return done


def tasks_of_first(server: str, *needed: str) -> dict[str, Any]:
    """Return the task runs of the first run by name, once the server has recorded them."""
    until = time.monotonic() + PATIENCE_S
    flow = min(ask(server, "flow_runs/filter"), key=lambda one: one["created"])
    while time.monotonic() < until:
        runs = ask(server, "task_runs/filter")
        tasks = {one["name"]: one for one in runs if one["flow_run_id"] == flow["id"]}
        if {*needed, "report"} <= tasks.keys():
            break
        time.sleep(0.2)
    return tasks


def test_a_server_shows_steps_hits_and_artifacts(
    forks: ForkServer, home: Path, server: str, first: subprocess.CompletedProcess[str]
) -> None:
    again = run(forks, home, server, "--json", "--root", "served", *TWO_PROCESSES)
    assert [step["cached"] for step in json.loads(first.stdout)["steps"]] == [False] * 5
    assert [step["cached"] for step in json.loads(again.stdout)["steps"]] == [True] * 5

    wanted = {(step, state) for step in [*STEPS, "report"] for state in ("Completed", "Cached")}
    wanted |= {(f"pooled {number}", "Completed") for number in range(2)}
    until = time.monotonic() + PATIENCE_S  # the server records task runs a little later
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


def test_a_step_that_cannot_be_made_is_one_line(forks: ForkServer, home: Path, server: str) -> None:
    (home / "blocked" / "dump").mkdir(parents=True)
    (home / "blocked" / "dump").rmdir()
    (home / "blocked" / "dump").write_text("a file where a folder has to be")
    failed = run(forks, home, server, "--root", "blocked")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("latentqa: ")


def test_a_server_that_does_not_answer_is_one_line(home: Path) -> None:
    failed = run_anew(home, "http://127.0.0.1:9/api", "--root", "unserved")
    assert failed.returncode == 2
    assert failed.stderr == (
        "latentqa: PREFECT_API_URL=http://127.0.0.1:9/api: no Prefect server answers there "
        "(ConnectError). Start one with `prefect server start`, or unset it.\n"
    )


def test_steps_have_edges_and_their_lines_are_logged(
    server: str, first: subprocess.CompletedProcess[str]
) -> None:
    tasks = tasks_of_first(server, *STEPS)
    before = {one["id"] for one in tasks["train"]["task_inputs"]["wait_for"]}
    assert before == {tasks[name]["id"] for name in ("conversations", "questions", "dump")}
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        logs = [one["message"] for one in ask(server, "logs/filter")]
        if any(one.startswith("report") for one in logs):
            break
        time.sleep(0.2)
    assert any(line.startswith("train ") and line.endswith(" s") for line in logs)


def test_pieces_of_a_step_are_tasks_of_a_pool_of_processes(
    home: Path, server: str, first: subprocess.CompletedProcess[str]
) -> None:
    tasks = tasks_of_first(server, "pooled 0", "pooled 1")
    assert {tasks[name]["state_name"] for name in ("pooled 0", "pooled 1")} == {"Completed"}
    (folder,) = (home / "served" / "dump").iterdir()
    assert len(list(folder.glob("data/pooled-*"))) == 2


@pytest.mark.prove
def test_pieces_of_a_step_are_tasks_of_threads_too(
    forks: ForkServer, home: Path, server: str
) -> None:
    chosen = (*TWO_PROCESSES, "--set", "runtime.task_runner=threads")
    done = run(forks, home, server, "--root", "pooled-threads", *chosen)
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "pooled-threads" / "dump").iterdir()
    assert len(list(folder.glob("data/pooled-*"))) == 2


@pytest.mark.prove
def test_a_killed_process_of_a_task_runner_leaves_no_task_running_and_no_work_undone(
    forks: ForkServer, home: Path, server: str
) -> None:
    (home / "log.kills").touch()
    done = run(forks, home, server, "--root", "pool-killed", "--set", "runtime.workers=2")
    assert done.returncode == 0, done.stderr
    flow = max(ask(server, "flow_runs/filter"), key=lambda one: one["created"])
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        runs = ask(server, "task_runs/filter")
        own = [one for one in runs if one["flow_run_id"] == flow["id"]]
        states = {one["state_name"] for one in own if one["name"].startswith("pooled")}
        if "Completed" in states and states <= {"Crashed", "Completed"}:
            break
        time.sleep(0.2)
    assert "Completed" in states
    assert "Running" not in states  # one that the server knew of is marked


def test_a_credential_among_the_parameters_is_not_kept(
    forks: ForkServer, home: Path, server: str
) -> None:
    address = "evaluate.judge={endpoint: {base_url: 'http://me:hunter2@127.0.0.1:9/v1', model: m}}"
    run(forks, home, server, "--root", "secret", "--until", "conversations", "--set", address)
    assert "hunter2" not in json.dumps(ask(server, "flow_runs/filter"))


def test_a_profile_counts_as_the_environment_does_and_no_proxy_is_asked(
    home: Path, server: str, tmp_path: Path
) -> None:
    own = tmp_path / "home"
    own.mkdir()
    (own / "profiles.toml").write_text(
        f'active = "local"\n[profiles.local]\nPREFECT_API_URL = "{server}"\n'
    )
    dead = f"http://127.0.0.1:{free_port()}"
    proxies = {"HTTP_PROXY": dead, "http_proxy": dead, "NO_PROXY": "", "no_proxy": ""}
    before = len(ask(server, "flow_runs/filter"))
    until = ("--until", "conversations")
    done = run_anew(home, None, "--root", "profile", *until, PREFECT_HOME=str(own), **proxies)
    assert done.returncode == 0, done.stderr
    assert "cannot be reached any more" not in done.stderr
    assert len(ask(server, "flow_runs/filter")) == before + 1


@pytest.mark.parametrize(("failures", "code"), [(2, 0), (3, 2)])
def test_a_step_whose_endpoint_fails_is_tried_again(
    forks: ForkServer, home: Path, server: str, failures: int, code: int
) -> None:
    (home / "log.fails").write_text(str(failures))
    try:
        done = run(forks, home, server, "--root", f"flaky-{failures}", "--until", "questions")
    finally:
        (home / "log.fails").unlink()
    assert done.returncode == code, done.stderr
    assert done.stderr.count("questions ") >= 3


def test_a_step_that_takes_too_long_is_ended_where_a_limit_is_set(
    forks: ForkServer, home: Path, server: str
) -> None:
    limit = ("--set", "runtime.step_timeout_s=1")
    process = start(forks, home, server, "--root", "slow", *limit, delay=PATIENCE_S)
    _, told = process.communicate(PATIENCE_S)
    assert process.returncode == 2
    assert told.splitlines()[-1].startswith(
        "latentqa: conversations: took longer than runtime.step_timeout_s, 1 s."
    )


def test_without_a_server_prefect_is_not_loaded_and_nothing_listens(home: Path) -> None:
    script = (
        "import sys, socket; sys.argv = sys.argv[1:]\n"
        "socket.socket.listen = None\n"
        "import runpy\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert 'prefect' not in sys.modules\n"
    )
    words = [str(home / "log"), "2", "0", "run", "fake.yaml", "--root", "alone"]
    done = subprocess.run(
        [sys.executable, "-c", script, str(CHILD), *words],
        capture_output=True,
        text=True,
        cwd=home,
        env=environment(home) | {"PYTHONPATH": os.pathsep.join([*sys.path, str(CHILD.parent)])},
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stderr.splitlines()} == {*STEPS, "report"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("served", [False, True], ids=["alone", "served"])
def test_a_stopped_run_ends_soon(
    forks: ForkServer, home: Path, server: str, how: signal.Signals, served: bool
) -> None:
    root = f"stopped-{how.name}-{served}"
    url = server if served else None
    process = start(forks, home, url, "--root", root, delay=2 * PATIENCE_S)
    said = process.first_line(PATIENCE_S)
    assert "runs" in said
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    _, told = process.communicate(PATIENCE_S)  # its first piece takes twice as long
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        stopped = "Stopped. Finished work is kept; run again to go on.\n"
        assert told.removeprefix(said) == stopped


# the last test: it ends the server of all others
def test_a_lost_server_ends_no_run_and_is_told_once(
    forks: ForkServer, home: Path, server_process: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url, server = server_process
    process = start(forks, home, url, "--root", "lost", "--json", delay=0.2)
    process.first_line(PATIENCE_S, "dump")
    server.kill()
    server.wait()
    out, err = process.communicate(PATIENCE_S)
    assert process.returncode == 0, err
    assert [step["step"] for step in json.loads(out)["steps"]] == STEPS
    assert len([line for line in err.splitlines() if "cannot be reached any more (" in line]) == 1
    assert "Traceback" not in err
    assert "ERROR" not in err
