"""Whether the process that left something behind still runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from core import files
from core.liveness import is_running, machine_name
from generators.llm.log import claims


def test_a_process_runs_until_it_has_ended() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert is_running(os.getpid())
    assert not is_running(ended.pid)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="no PID namespaces")
def test_containers_of_one_name_are_machines_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their processes are not found by number here, and may well run."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = machine_name()

    def leave() -> tuple[Path, str]:
        left = tmp_path / f".x.{files._host()}-{ended.pid}.1.tmp"
        left.mkdir()
        return left, f"{machine_name()}:{ended.pid}:ab"

    own, own_owner = leave()
    namespace = tmp_path / "namespace"
    namespace.touch()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path: stat(namespace))
    assert machine_name() != here
    other, other_owner = leave()
    monkeypatch.undo()
    files.remove_leftovers(tmp_path / "x")
    assert (own.exists(), other.exists()) == (False, True)
    assert not claims._is_alive(own_owner, beat=10.0, now=11.0)
    assert claims._is_alive(other_owner, beat=10.0, now=11.0)
    assert not claims._is_alive(other_owner, beat=10.0, now=60.0)
