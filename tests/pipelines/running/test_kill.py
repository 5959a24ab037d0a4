"""SIGKILL of the whole process group, at moments spread over a run: nothing half-written is taken
for whole, no finished piece is made twice, and the result is that of a run left alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_steps import FakeSteps, is_good, runner

from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

PIECES = 4
CHILD = Path(__file__).parents[2] / "fake_steps.py"


def start(root: Path, log: Path, delay: float = 0.02, **changes: Any) -> subprocess.Popen[bytes]:
    words = [str(root), str(log), str(PIECES), str(delay), json.dumps(changes)]
    return subprocess.Popen(
        [sys.executable, str(CHILD), *words],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def kill_after(root: Path, log: Path, count: int) -> None:
    """Start a run and kill its group once the log has `count` lines more."""
    goal = len(lines(log)) + count
    process = start(root, log)
    while len(lines(log)) < goal and process.poll() is None:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_killed_over_and_over_it_ends_as_if_left_alone(tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    for count in (1, 3, 5, 6, 4):
        kill_after(root, log, count)
        for artifact in ArtifactRoot(root).artifacts():
            assert artifact.damaged_files() == []
    steps = FakeSteps(log, pieces=PIECES)
    result = runner(root, steps).run()
    alone = runner(tmp_path / "alone", FakeSteps(tmp_path / "log2", pieces=PIECES)).run()
    assert [(r.artifact.key, r.artifact.output) for r in result.steps] == [
        (r.artifact.key, r.artifact.output) for r in alone.steps
    ]
    # a piece whose last byte was being written when the kill came may be written once more
    assert len(lines(log)) - len(set(lines(log))) <= 5
    assert set(lines(log)) == set(lines(tmp_path / "log2"))


def test_a_killed_step_resumes_from_its_pieces(tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    kill_after(root, log, 2 * PIECES + 2)  # in the middle of dump
    (partial,) = ArtifactRoot(root).partials()
    assert partial.kind == "dump"
    kept = [p.name for p in partial.data.iterdir() if is_good(p)]
    steps = FakeSteps(log, pieces=PIECES)
    steps.written()
    result = runner(root, steps, until="dump").run()
    assert [line for line in steps.written() if line.startswith("dump")] == [
        f"dump {i}" for i in range(PIECES) if f"piece-{i}" not in kept
    ]
    assert result.steps[2].artifact.record["resumed"]


def test_two_runs_at_a_time_make_each_piece_once(tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    first, second = start(root, log), start(root, log)
    told = [process.communicate(timeout=60)[1].decode() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(lines(log)) == len(set(lines(log))) == 6 * PIECES
    assert any("is making it; waiting for it." in text for text in told)


def test_two_experiments_at_a_time_make_what_they_share_once(tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    other: dict[str, Any] = {"experiment": "other", "evaluate": {"answers": 7}}
    both = start(root, log), start(root, log, **other)
    for process in both:
        assert process.communicate(timeout=60)[1] is not None
        assert process.returncode == 0
    times = Counter(lines(log))
    own = {line: n for line, n in times.items() if line.split()[0] in ("evaluate", "report")}
    assert set(own.values()) == {2}
    assert {n for line, n in times.items() if line not in own} == {1}
    refs = Refs(ArtifactRoot(root))
    first, second = refs.resolve_set("fake:1"), refs.resolve_set("other:1")
    assert first["train"].key == second["train"].key
    assert first["evaluate"].key != second["evaluate"].key


def test_a_tiny_disk_that_fills_keeps_finished_work(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("needs the right to mount a small disk")
    try:
        log = tmp_path / "log"
        ballast = mount / "ballast"

        def fill(step: str, piece: int) -> None:
            if step == "train":
                with open(ballast, "wb", buffering=0) as file:
                    while True:
                        file.write(b"\0" * 4096)

        with pytest.raises(OSError, match=r"the disk is full\. Finished work is kept"):
            runner(mount / "r", FakeSteps(log, before_piece=fill)).run()
        ballast.unlink()
        steps = FakeSteps(log)
        steps.written()
        result = runner(mount / "r", steps).run()
        assert [r.step.name for r in result.steps if not r.cached] == ["train", "evaluate"]
    finally:
        subprocess.run(["umount", str(mount)], check=True)
