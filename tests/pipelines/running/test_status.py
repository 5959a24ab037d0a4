"""How far a run is, told from outside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fake_steps import FakeSteps, runner

from pipelines.running.status import StepStatus, status_of


def states(root: Path, log: Path) -> dict[str, StepStatus]:
    return {s.step: s for s in status_of(runner(root, FakeSteps(log, pieces=50)))}


def test_nothing_yet(tmp_path: Path) -> None:
    found = states(tmp_path / "r", tmp_path / "log")
    assert found["conversations"].state == "missing"
    assert found["dump"].state == "waits"


def test_running_then_stopped(tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    process = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).parents[2] / "fake_steps.py"),
            str(root),
            str(log),
            "50",
            "0.5",
            "{}",
        ],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    running = states(root, log)["conversations"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped = states(root, log)["conversations"]
    assert running.state == "running"
    assert running.holder is not None
    assert running.holder.pid == process.pid
    assert running.progress is not None
    assert running.progress["total"] == 50
    assert stopped.state == "stopped"
    assert stopped.holder is None


def test_complete_and_damaged(tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    first = runner(root, FakeSteps(log, pieces=50)).run()
    (first.steps[1].artifact.data / "piece-0").unlink()
    found = states(root, log)
    assert found["conversations"].state == "complete"
    assert found["questions"].state == "damaged"
    assert found["train"].state == "waits"
