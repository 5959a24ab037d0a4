"""SIGKILL of the whole process group, at moments spread over a run: nothing half-written is taken
for whole, no finished piece is made twice, and the result is that of a run left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_steps import FakeSteps, is_good, runner
from forks import Forked, ForkServer, fork_server

from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot

PIECES = 4
CHILD = Path(__file__).parents[2] / "fake_steps.py"


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("forks"), os.environ, "fake_steps") as made:
        yield made


def start(forks: ForkServer, root: Path, log: Path, delay: float = 0.02, **changes: Any) -> Forked:
    words = [str(root), str(log), str(PIECES), str(delay), json.dumps(changes)]
    return forks.start(str(CHILD), *words, cwd=root.parent, env=os.environ)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def kill_after(forks: ForkServer, root: Path, log: Path, count: int) -> None:
    """Start a run and kill its group once the log has `count` lines more."""
    goal = len(lines(log)) + count
    process = start(forks, root, log)
    while len(lines(log)) < goal and process.poll() is None:
        time.sleep(0.002)
    process.stop()


def test_killed_over_and_over_it_ends_as_if_left_alone(forks: ForkServer, tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    for count in (1, 3, 5, 6, 4):
        kill_after(forks, root, log, count)
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


def test_a_killed_step_resumes_from_its_pieces(forks: ForkServer, tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    kill_after(forks, root, log, 2 * PIECES + 2)  # in the middle of dump
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


def test_two_runs_at_a_time_make_each_piece_once(forks: ForkServer, tmp_path: Path) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    first, second = start(forks, root, log), start(forks, root, log)
    told = [process.communicate(240)[1] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(lines(log)) == len(set(lines(log))) == 6 * PIECES
    assert any("is computing it; waiting." in text for text in told)


def test_two_experiments_at_a_time_make_what_they_share_once(
    forks: ForkServer, tmp_path: Path
) -> None:
    root, log = tmp_path / "r", tmp_path / "log"
    other: dict[str, Any] = {"experiment": "other", "evaluate": {"answers": 7}}
    both = start(forks, root, log), start(forks, root, log, **other)
    for process in both:
        assert process.wait(240) == 0
    times = Counter(lines(log))
    own = {line: n for line, n in times.items() if line.split()[0] in ("evaluate", "report")}
    assert set(own.values()) == {2}
    assert {n for line, n in times.items() if line not in own} == {1}
    refs = Refs(ArtifactRoot(root))
    first, second = refs.resolve_set("fake:1"), refs.resolve_set("other:1")
    assert first["train"].key == second["train"].key
    assert first["evaluate"].key != second["evaluate"].key


def test_a_read_only_root_serves_a_run_that_finds_everything(tmp_path: Path) -> None:
    steps = FakeSteps(tmp_path / "log", pieces=1)
    first = runner(tmp_path / "r", steps)
    with first.open():
        first.run()
    place = tmp_path / "read-only"
    with mounted(place, "--bind", str(tmp_path / "r")):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        found = runner(place, steps)
        with found.open():
            assert all(step.cached for step in found.run().steps)
        changed = runner(place, steps, evaluate={"answers": 7})
        with changed.open(), pytest.raises(OSError, match="cannot write here"):
            changed.run()


@contextlib.contextmanager
def mounted(place: Path, *words: str) -> Iterator[None]:
    """Mount what the words of `mount` say at a new folder; skip the test without the right to."""
    place.mkdir()
    words = ("mount", *words, str(place))
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_tiny_disk_that_fills_keeps_finished_work(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    with mounted(mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs"):
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
