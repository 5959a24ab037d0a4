"""Processes that train together: what they return, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import launched
import pytest

from core.errors import ConfigError
from core.processes.launch import run_distributed
from core.progress import silent


def test_the_first_process_tells_how_far_it_is_and_returns(tmp_path: Path) -> None:
    seen = []

    def progress(done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    assert run_distributed(launched.tells, 2, tmp_path, progress=progress) == {"rank": 0}
    assert seen == [(10, 20), (20, 20)]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"0": "2", "1": "2"}
    assert "WORLD_SIZE" not in os.environ


def test_an_error_of_any_is_the_error_and_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match="a mistake"):
        run_distributed(launched.fails, 2, progress=silent)
    assert time.monotonic() - start < 290  # the other one would wait for twice as long


def test_one_that_dies_is_named() -> None:
    with pytest.raises(RuntimeError, match="process 1 of 2 died"):
        run_distributed(launched.dies, 2, progress=silent)


def test_they_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import launched\n"
        "from core.progress import silent\n"
        "from core.processes.launch import run_distributed\n"
        "if __name__ == '__main__':\n"
        "    run_distributed(launched.waits, 2, Path(sys.argv[1]), progress=silent)\n"
    )
    (tmp_path / "script.py").write_text(script)
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parents[3]), str(here.parents[2])])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
    )
    marks = [tmp_path / "0", tmp_path / "1"]
    _until(lambda: all(mark.is_file() and mark.read_text() for mark in marks))
    parent.kill()
    parent.wait()
    _until(lambda: not any(_alive(int(mark.read_text())) for mark in marks))


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def _until(true: object, seconds: float = 30) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
