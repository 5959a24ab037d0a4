"""Locks hold between processes and die with them."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import StorageError
from pipelines.artifacts.locks import Holder, exclusive, exclusive_or_none, holder, shared

HOLD = """
import sys, time
from pathlib import Path
from pipelines.artifacts.locks import exclusive, shared
path = Path(sys.argv[1])
with exclusive(path, lambda who: None) if sys.argv[2] == "alone" else shared(path):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other_process(path: Path, how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_holder_is_another_process_that_can_be_named(tmp_path: Path) -> None:
    with other_process(tmp_path / "x.lock") as process:
        found = holder(tmp_path / "x.lock")
    assert found is not None
    assert found.pid == process.pid
    assert str(found).startswith(f"process {process.pid} on ")


def test_a_full_disk_is_told_with_the_lock_that_could_not_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lock = tmp_path / "x.lock"
    monkeypatch.setattr(os, "write", refuse)
    with (
        pytest.raises(StorageError, match=r"x\.lock: the disk is full"),
        exclusive(lock, lambda who: None),
    ):
        pass
    with exclusive_or_none(lock) as held:  # as who frees some of it does
        assert held


def test_a_lock_that_is_free_has_no_holder(tmp_path: Path) -> None:
    with exclusive(tmp_path / "x.lock", lambda who: None):
        pass
    assert holder(tmp_path / "x.lock") is None


def test_sigkill_frees_a_lock(tmp_path: Path) -> None:
    with other_process(tmp_path / "x.lock") as process:
        process.kill()
        process.wait()
        assert holder(tmp_path / "x.lock") is None


def test_a_waiter_is_told_once_who_holds_it(tmp_path: Path) -> None:
    told: list[Holder | None] = []
    with other_process(tmp_path / "x.lock") as process:

        def waiting(who: Holder | None) -> None:
            told.append(who)
            process.kill()

        with exclusive(tmp_path / "x.lock", waiting):
            pass
    assert [who.pid for who in told if who] == [process.pid]


def test_alone_is_refused_while_another_shares(tmp_path: Path) -> None:
    with (
        other_process(tmp_path / "x.lock", "shared"),
        exclusive_or_none(tmp_path / "x.lock") as alone,
    ):
        assert not alone


def test_sharing_is_possible_while_another_shares(tmp_path: Path) -> None:
    with other_process(tmp_path / "x.lock", "shared"), shared(tmp_path / "x.lock"):
        pass


def test_alone_is_given_where_nobody_is(tmp_path: Path) -> None:
    with exclusive_or_none(tmp_path / "x.lock") as alone:
        assert alone
