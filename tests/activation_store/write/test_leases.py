"""Leases: one writer a shard, whoever hangs or dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from activation_store.write import leases
from activation_store.write.leases import LeaseLost, Leases


def test_no_two_writers_are_at_one_shard(tmp_path: Path) -> None:
    a, b = Leases(tmp_path), Leases(tmp_path)
    assert [a.take([4, 7]), b.take([4, 7]), a.take([4, 7])] == [4, 7, None]
    for writer in (a, b):
        with writer.alone() as others:
            assert others == 1


def test_what_is_given_back_is_free(tmp_path: Path) -> None:
    a, b = Leases(tmp_path), Leases(tmp_path)
    a.take([4])
    b.release(4)  # not its own: stays
    assert b.take([4]) is None
    a.release(4)
    assert b.take([4]) == 4


def test_a_silent_writer_loses_its_shard_and_is_told(tmp_path: Path) -> None:
    hung, other = Leases(tmp_path, seconds=-1), Leases(tmp_path)
    hung.take([4])
    assert other.take([4]) == 4
    with pytest.raises(LeaseLost, match=r"shard 4: .* process \d+ has taken the shard over"):
        hung.renew(4)
    hung.release(4)
    assert Leases(tmp_path).take([4]) is None


def test_a_silent_writer_goes_on_where_nobody_came(tmp_path: Path) -> None:
    hung = Leases(tmp_path, seconds=-1)
    hung.take([4])
    hung.renew(4)


def test_a_renewed_lease_holds_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(leases.time, "time", lambda: now)
    a, b = Leases(tmp_path, seconds=10), Leases(tmp_path, seconds=10)
    a.take([4])
    now = 1009.0
    a.renew(4)
    now = 1018.0
    assert b.take([4]) is None
    now = 1020.0
    assert b.take([4]) == 4


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_dead_writers_shard_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from activation_store.write.leases import Leases\n"
        "Leases(pathlib.Path(sys.argv[1])).take([4])\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert child.stdout is not None
    child.stdout.readline()
    other = Leases(tmp_path)
    assert other.take([4]) is None
    os.kill(child.pid, 9)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not waited for
    assert other.take([4]) == 4
    child.communicate()


def test_a_table_that_was_lost_holds_nothing(tmp_path: Path) -> None:
    a = Leases(tmp_path)
    a.take([4])
    (tmp_path / leases.FOLDER / "table.json").write_bytes(b"")
    assert Leases(tmp_path).take([4]) == 4
