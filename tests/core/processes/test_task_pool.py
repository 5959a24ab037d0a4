"""Task pools: calls in this process, in a pool of processes, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from core.processes.task_pool import (
    MOST_CALLS,
    InProcess,
    LocalPool,
    TaskPool,
    local_pool,
    split,
    worker_number,
)
from core.runtime import Runtime


def halve(number: int) -> dict[str, int]:
    """Return half of an even number, the process and its number."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return {"half": number // 2, "process": os.getpid(), "worker": worker_number()}


def end_self(path: str) -> None:
    """Kill the own process by the first call, and return at the second."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def wait_long(path: str) -> None:
    """Write the own process id to a file, and wait."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)


@pytest.mark.parametrize(
    "pool", [InProcess(), LocalPool(2), LocalPool(2, apart=True)], ids=["here", "pool", "apart"]
)
def test_each_call_has_an_outcome_and_an_error_ends_no_other(pool: TaskPool) -> None:
    calls = [{"number": n} for n in (0, 1, 2, 4)]
    found = sorted(pool.run(halve, calls, ["a", "b", "c", "d"]), key=lambda one: one.number)
    values = [None if one.error else one.value["half"] for one in found]
    assert values == [0, None, 1, 2]
    assert str(found[1].error) == "1 is odd"
    processes = {one.value["process"] for one in found if one.error is None}
    assert (processes == {os.getpid()}) == (pool.workers == 1)


def test_a_killed_process_is_an_outcome(tmp_path: Path) -> None:
    path = str(tmp_path / "began")
    (first,) = LocalPool(2).run(end_self, [{"path": path}], ["end"])
    assert isinstance(first.error, BrokenProcessPool)
    (again,) = LocalPool(2).run(end_self, [{"path": path}], ["end"])
    assert again.error is None


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    path = tmp_path / "child"
    script = (
        "import test_task_pool as t\n"
        "if __name__ == '__main__':\n"
        f"    list(t.LocalPool(2).run(t.wait_long, [dict(path={str(path)!r})], ['wait']))\n"
    )
    (tmp_path / "parent.py").write_text(script)
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], env={**os.environ, "PYTHONPATH": places}
    )
    until = time.monotonic() + 120
    while not (path.exists() and path.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    child = int(path.read_text())
    parent.kill()
    parent.wait()
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


def test_the_runtime_chooses_the_pool() -> None:
    assert isinstance(local_pool(Runtime()), InProcess)
    assert local_pool(Runtime(workers=3)) == LocalPool(3, apart=False)
    assert local_pool(Runtime(workers=3, task_runner="threads")) == LocalPool(3, apart=True)


def test_work_is_cut_into_several_pieces_a_worker_and_not_into_too_many() -> None:
    pool = LocalPool(2)
    assert [len(piece) for piece in split(range(10), pool, most=16)] == [2] * 5
    assert {len(piece) for piece in split(range(1000), pool, most=16)} == {16, 8}
    assert len(split(range(100_000), pool, most=16)) == MOST_CALLS
    assert split([], pool, most=16) == []
