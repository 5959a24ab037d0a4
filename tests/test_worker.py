"""A Prefect worker on a real server, killed in the middle of a firing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from operated import PATIENCE_S, ask, environment, firings, flow_states, start, stop, wait_for
from prefect_server import prefect_server
from scripted_endpoint import ScriptedEndpoint

EXPERIMENT = """
experiment: sheets
generate:
  endpoint: {{model: scripted, base_url: "{url}"}}
  conversations:
    kinds: {{persona: {{controls: 24, views: [control]}}}}
    splits: {{validation: 0.1, test: 0.2}}
  questions: {{per_control: 2}}
runtime: {{concurrency: 2}}
schedule: {{mode: grow, by: 4, until: questions}}
"""
DEPLOYMENT = """
name: latentqa
deployments:
  - name: sheets
    entrypoint: flows.latentqa_schedule
    parameters: {config: sheets.yaml, root: root}
    schedules: [{cron: "* * * * *", timezone: UTC}]
    work_pool: {name: kills}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    with prefect_server(home) as (url, _):
        yield url


def prefect(home: Path, url: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *words],
        cwd=home,
        env=environment(home, url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_a_worker_killed_in_the_middle_is_resumed_by_the_next_firing(
    home: Path, server: str
) -> None:
    with ScriptedEndpoint(latency_s=1.0) as endpoint:
        (home / "sheets.yaml").write_text(EXPERIMENT.format(url=endpoint.base_url))
        (home / "prefect.yaml").write_text(DEPLOYMENT)
        prefect(home, server, "work-pool", "create", "kills", "--type", "process")
        prefect(home, server, "deploy", "--prefect-file", "prefect.yaml", "--all")
        words = ("-m", "prefect", "worker", "start", "--pool", "kills")
        worker = start(home, server, *words)
        try:
            wait_for(lambda: len(endpoint.requests) >= 8)
        finally:
            stop(worker, signal.SIGKILL)
            for run in ask(server, "POST", "flow_runs/filter", {}):
                if run["infrastructure_pid"]:  # its runs have sessions of their own
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(run["infrastructure_pid"].rpartition(":")[2]), signal.SIGKILL)
        (killed,) = (home / "root/schedules/sheets").glob("*.json")
        assert json.loads(killed.read_text())["state"] == "begun"
        killed_runs = len(flow_states(server, "latentqa-schedule"))
        assert flow_states(server, "latentqa-schedule") == ["Running"] * killed_runs
        endpoint.latency_s = 0.0
        again = start(home, server, *words)
        try:
            first, *_ = wait_for(lambda: firings(home / "root"), PATIENCE_S)
            wait_for(lambda: "Promoted" in flow_states(server, "latentqa-schedule"), 60)
        finally:
            stop(again, signal.SIGINT)
    assert (first["number"], first["state"]) == (1, "promoted")
    states = flow_states(server, "latentqa-schedule")
    assert states[: killed_runs + 1] == ["Crashed"] * killed_runs + ["Promoted"]
    crashed = {
        one["id"]
        for one in ask(server, "POST", "flow_runs/filter", {})
        if one["state"]["name"] == "Crashed"
    }
    tasks = ask(server, "POST", "task_runs/filter", {})
    left = [one["state"]["name"] for one in tasks if one["flow_run_id"] in crashed]
    assert "Running" not in left
    # finished replies were not asked for again; two were under way when the kill came
    times = Counter(json.dumps(body, sort_keys=True) for body in endpoint.requests)
    repeated = [body for body, count in times.items() if count > 1 and "probe" not in body]
    assert len(repeated) <= 3
