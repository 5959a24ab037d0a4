"""Overhead of a Prefect server: seconds per run, milliseconds per task.

Steps that compute for a while and write a file are run by themselves and as tasks of a flow on a
server of the benchmark's own (SQLite), a few and many of them; the difference of the two is what a
task costs, and what is left at none of them is what a run costs. The server works beside the run,
so steps that compute nothing wait for it, and are measured too.

    python benchmarks/orchestration.py --quickstart-s 600
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path
from unittest.mock import patch

from core.documents.canonical import digest
from pipelines.artifacts.records import StepResult
from pipelines.running.request import RunRequest
from pipelines.steps.shared.step import Step, StepCall

FEW, MANY = 2, 42
QUICKSTART_STEPS = 7
SERVER = (
    *("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
    *("--log-level", "error", "--lifespan", "on", "--host", "127.0.0.1", "--port"),
)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--step-s", type=float, nargs="+", default=[0.2, 0.0], help="computation of a step, seconds"
    )
    parser.add_argument("--quickstart-s", type=float, default=600, help="seconds of a quickstart")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, url = start_server(Path(folder))
        try:
            os.environ |= {"PREFECT_API_URL": url, "PREFECT_HOME": folder}
            found = {step_s: measure(Path(folder), words.rounds, step_s) for step_s in words.step_s}
        finally:
            server.kill()
            server.wait()
    print("| a step computes, s | steps | alone, s | on a server, s | added, s |")
    print("|---|---|---|---|---|")
    said = []
    for step_s, (alone, shown) in found.items():
        for steps in (FEW, MANY):
            added = shown[steps] - alone[steps]
            print(
                f"| {step_s:g} | {steps} | {alone[steps]:.2f} | {shown[steps]:.2f} | {added:.2f} |"
            )
        few, many = (shown[steps] - alone[steps] for steps in (FEW, MANY))
        task_s = (many - few) / (MANY - FEW)
        run_s = few - FEW * task_s + QUICKSTART_STEPS * task_s
        said.append(
            f"steps of {step_s:g} s: {task_s * 1000:.0f} ms a task with its artifacts (expected: "
            f"under 25); {run_s:.1f} s a run of {QUICKSTART_STEPS} steps, which is "
            f"{run_s / words.quickstart_s:.1%} of a quickstart of {words.quickstart_s:g} s "
            "(expected: under 5 %)"
        )
    print("", *said, sep="\n\n")


def measure(folder: Path, rounds: int, step_s: float) -> tuple[dict[int, float], dict[int, float]]:
    """Return median seconds of runs by number of steps: by themselves, and on the server.

    Args:
        folder: receives the artifact roots.
        rounds: runs of each kind that count.
        step_s: seconds that a step computes.
    """
    import flows

    flows.prepare_server()
    config = folder / "orchestration.yaml"
    config.write_text("experiment: orchestration\ndata: {path: .}\n")
    alone: dict[int, float] = {}
    shown: dict[int, float] = {}
    for steps in (FEW, MANY):
        table = make_steps(steps, step_s)
        with patch("pipelines.running.runner.steps_for", lambda experiment, table=table: table):
            times: dict[bool, list[float]] = {False: [], True: []}
            for turn in range(rounds + 1):
                for served in (False, True):
                    root = str(folder / f"root-{step_s}-{steps}-{turn}-{served}")
                    start = time.perf_counter()
                    if served:
                        flows.latentqa(config=str(config), root=root)
                    else:
                        RunRequest(config=str(config), root=root).run()
                    if turn:  # the first warms up
                        times[served].append(time.perf_counter() - start)
        alone[steps], shown[steps] = (statistics.median(times[one]) for one in (False, True))
    return alone, shown


def make_steps(count: int, seconds: float) -> tuple[Step, ...]:
    """Return a table of steps, each with the one before as its input."""
    return tuple(
        Step(
            name=f"step-{number}",
            version=1,
            entry="core.documents.canonical",
            run=partial(write_file, number, seconds),
            config=lambda experiment: {},
            inputs={"before": f"step-{number - 1}"} if number else {},
            external=lambda outside: {"file": digest("outside")},
        )
        for number in range(count)
    )


def write_file(number: int, seconds: float, call: StepCall) -> StepResult:
    """Compute for a while, write a file, and tell how far it is."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    (call.out / "file").write_text(str(number))
    call.progress(1, 1, "files")
    return StepResult(counts={"files": 1})


def start_server(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a Prefect server, and return it and the URL of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_UI_ENABLED": "0"}
    environment = {**os.environ, **quiet, "PREFECT_HOME": str(home)}
    server = subprocess.Popen([sys.executable, *SERVER, str(port)], env=environment)
    url = f"http://127.0.0.1:{port}/api"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        try:
            with opener.open(f"{url}/health", timeout=5):
                return server, url
        except OSError:
            time.sleep(0.2)
    server.kill()
    raise SystemExit("the Prefect server does not come up")


if __name__ == "__main__":
    main()
