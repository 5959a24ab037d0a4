"""Schedules on a real Prefect server, and the commands of docs/operate.md."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from command_line import Called
from fake_steps import FakeSteps
from forks import Forked, ForkServer, fork_server
from operated import PATIENCE_S, ask, environment, firings, flow_states, wait_for
from prefect_server import prefect_server
from schedule_example import TEXT

import pipelines.running.runner
from pipelines.steps.order import steps_for

pytestmark = pytest.mark.timeout(900)
CHECKOUT = Path(__file__).parents[1]
PAGE = (CHECKOUT / "docs" / "operate.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("operate")
    (home / "sheets.yaml").write_text(TEXT)
    (home / "fake.yaml").write_text("experiment: fake\ndata: {path: .}\n")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    with prefect_server(home) as (url, _):
        yield url


class Programs:
    """Python programs beside the server, forked from a process that has imported Prefect."""

    def __init__(self, home: Path, url: str, forks: ForkServer) -> None:
        self._home, self._env, self._forks = home, environment(home, url), forks

    def start(self, *words: str) -> Forked:
        return self._forks.start(*words, cwd=self._home, env=self._env)

    def run(self, *words: str) -> str:
        """Run a program, and return what it prints."""
        done = self.start(*words)
        out, err = done.communicate(PATIENCE_S)
        assert done.returncode == 0, out + err
        return out


@pytest.fixture(scope="module")
def programs(home: Path, server: str) -> Iterator[Programs]:
    own = environment(home, server)
    with fork_server(home / "forks", own, "flows", "prefect.cli", "fake_steps") as forks:
        yield Programs(home, server, forks)


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a webhook, and the texts that it is sent."""
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Hook) as hook:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hook.server_port}/hook", heard
        hook.shutdown()


def call_webhook_on_refusal(home: Path, programs: Programs, webhook: str) -> None:
    """Do what the page says: make the block, name it in the automation, create that."""
    command = "prefect automation create --from-file deploy/refused.yaml"
    assert command in COMMANDS
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    example = "https://chat.example.org/hooks/data"
    assert example in snippet
    block = programs.run("-c", snippet.replace(example, webhook)).split()[-1]
    text = (CHECKOUT / "deploy" / "refused.yaml").read_text()
    (home / "deploy").mkdir()
    (home / "deploy" / "refused.yaml").write_text(text.replace(str(UUID(int=0)), block))
    programs.run("-m", *shlex.split(command))


def test_a_served_schedule_promotes_one_version_and_refuses_the_next(
    home: Path, server: str, programs: Programs
) -> None:
    with receiver() as (webhook, heard):
        call_webhook_on_refusal(home, programs, webhook)
        promote_and_refuse(home, server, programs)
        (text,) = wait_for(lambda: heard, 60)
    assert text.startswith('{"text": "sheets: latentqa.schedule.refused ')
    assert "category is " in text


def promote_and_refuse(home: Path, server: str, programs: Programs) -> None:
    """Serve a schedule, have it fire twice, and look at what came of it."""
    words = ("-m", "latentqa.cli", "serve", "sheets.yaml", "--root", "root")
    process = programs.start(*words, "--cron", "0 0 1 1 *")
    try:

        def made(number: int) -> bool:
            return len(firings(home / "root")) == number

        def deployed() -> Any:
            name = "latentqa-schedule/sheets"
            return ask(server, "GET", f"deployments/name/{name}").get("id")

        deployment = wait_for(deployed)
        new_run = f"deployments/{deployment}/create_flow_run"
        for number in (1, 2):
            # a server on SQLite refuses now and then, where two write to it at once
            wait_for(lambda: ask(server, "POST", new_run, {}).get("id"))
            wait_for(partial(made, number))
        wait_for(lambda: flow_states(server, "latentqa-schedule") == ["Promoted", "Refused"], 60)
    finally:
        process.stop(signal.SIGINT)
    first, second = firings(home / "root")
    assert (first["state"], second["state"]) == ("promoted", "refused")
    latest = json.loads((home / "root/refs/sheets/latest.json").read_text())
    assert latest["number"] == 1
    assert second["version"] == "sheets:2"

    def refused() -> Any:
        only = {"event": {"name": ["latentqa.schedule.refused"]}}
        return ask(server, "POST", "events/filter", {"filter": only})["events"]

    (event,) = wait_for(refused, 60)
    assert event["resource"]["prefect.resource.id"] == "latentqa.experiment.sheets"
    assert "category is " in event["payload"]["because"][0]
    schema = ask(server, "GET", f"deployments/{deployment}")["parameter_openapi_schema"]
    types = {name: field["type"] for name, field in schema["properties"].items()}
    assert types == {"config": "string", "root": "string", "overrides": "array"}  # the UI's form
    assert schema["required"] == ["config"]


@pytest.mark.prove
def test_a_schedule_set_for_the_next_minute_fires_twice(home: Path, programs: Programs) -> None:
    words = ("-m", "latentqa.cli", "serve", "sheets.yaml", "--root", "clock")
    process = programs.start(*words, "--cron", "* * * * *")
    try:
        wait_for(lambda: len(firings(home / "clock")) >= 2, 400)
    finally:
        process.stop(signal.SIGINT)
    first, second, *_ = firings(home / "clock")
    assert (first["state"], second["state"]) == ("promoted", "refused")
    assert first["due"] < second["due"]


@pytest.mark.prove
def test_two_serves_of_one_schedule_make_a_version_once(
    home: Path, server: str, programs: Programs
) -> None:
    before = len(flow_states(server, "latentqa-schedule"))
    words = ("-m", "latentqa.cli", "serve", "sheets.yaml", "--root", "twice")
    both = [programs.start(*words, "--cron", "0 0 1 1 *") for _ in range(2)]
    try:

        def deployed() -> Any:
            return ask(server, "GET", "deployments/name/latentqa-schedule/sheets").get("id")

        new_run = f"deployments/{wait_for(deployed)}/create_flow_run"
        time.sleep(10)  # until both ask the server for runs
        for _ in range(2):
            wait_for(lambda: ask(server, "POST", new_run, {}).get("id"))
        wait_for(
            lambda: (
                sorted(flow_states(server, "latentqa-schedule")[before:]) == ["Promoted", "Skipped"]
            )
        )
    finally:
        for process in both:
            process.stop(signal.SIGINT)
    (only,) = firings(home / "twice")
    assert (only["number"], only["state"]) == (1, "promoted")


def test_a_run_that_a_kill_left_running_is_marked_at_the_next_start(
    home: Path, server: str, programs: Programs
) -> None:
    child = str(CHECKOUT / "tests" / "fake_cli.py")
    words = (child, str(home / "log"), "1")
    run = ("run", "fake.yaml", "--root", "killed")
    process = programs.start(*words, "60", *run)
    wait_for(lambda: flow_states(server, "latentqa") == ["Running"])
    wait_for(lambda: list((home / "killed/locks").glob("flow-*.lock")))
    process.stop()
    assert flow_states(server, "latentqa") == ["Running"]
    again = programs.start(*words, "0", *run)
    assert again.wait(PATIENCE_S) == 0
    assert flow_states(server, "latentqa") == ["Crashed", "Completed"]
    assert not list((home / "killed/locks").glob("flow-*.lock"))


def test_a_sweep_on_a_server_is_a_flow_with_a_flow_for_each_point(
    home: Path, server: str, programs: Programs
) -> None:
    child = str(CHECKOUT / "tests" / "fake_cli.py")
    before = len(flow_states(server, "latentqa"))
    words = (child, str(home / "sweep.log"), "1", "0", "sweep", "fake.yaml", "--root", "swept")
    process = programs.start(*words, "--vary", "rank=2,4", "--out", "swept-page")
    assert process.wait(PATIENCE_S) == 0
    assert flow_states(server, "latentqa-sweep") == ["Completed"]
    assert flow_states(server, "latentqa")[before:] == ["Completed"] * 2
    assert (home / "swept-page" / "sweep.html").is_file()


@pytest.mark.parametrize(
    "command",
    [
        "prefect work-pool create latentqa-process --type process",
        "prefect --no-prompt deploy --prefect-file prefect.yaml --name quickstart-process",
    ],
)
def test_the_prefect_commands_of_the_page_run(command: str, home: Path, programs: Programs) -> None:
    assert command in COMMANDS
    (home / "prefect.yaml").write_bytes((CHECKOUT / "prefect.yaml").read_bytes())
    programs.run("-m", *shlex.split(command))


def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(CHECKOUT / "experiments")
    fake = FakeSteps(tmp_path / "log", pieces=1)
    monkeypatch.setattr(
        pipelines.running.runner,
        "steps_for",
        lambda experiment: steps_for(experiment) if experiment.schedule else fake.table(),
    )
    shown = [shlex.split(line) for line in COMMANDS if line.startswith("latentqa ")]
    run = [words for words in shown if words[1] != "serve"]
    expected = ["sweep", "fire", "fire", "diff", "gc", "gc", "status", "ls"]
    assert [words[1] for words in run] == expected
    for words in run:
        done = Called(capsys, *words[1:])
        assert done.code == 0, done.err
    assert (tmp_path / "sweep" / "sweep.html").is_file()


NO_TIMES = {
    ("--cron", "at three"): "--cron 'at three' --timezone UTC: not a valid time or time zone",
    ("--cron", "61 * * * *"): "not a valid time",
    ("--cron", "0 0 31 2 *"): "never comes",
    ("--cron", "0 3 * * *", "--timezone", "Mars/Olympus"): "Mars/Olympus: not a valid time",
    ("--cron", "0 3 * * *", "--set", "schedule={mode: fresh, gate: {min_controls: 1000}}"): (
        "schedule.gate.min_controls is 1000, but a version is planned with only 32 controls"
    ),
}


def test_serving_without_a_server_is_one_line(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(home / "nothing"))
    done = Called(capsys, "serve", str(home / "sheets.yaml"), "--cron", "0 3 * * *")
    assert "no Prefect server is configured" in done.refused()
    for words, why in NO_TIMES.items():
        done = Called(capsys, "serve", str(home / "sheets.yaml"), *words)
        assert why in done.refused()
    done = Called(capsys, "serve", str(home / "fake.yaml"), "--cron", "0 3 * * *")
    assert "fake: has no section `schedule`" in done.refused()
