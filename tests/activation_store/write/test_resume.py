"""Kills and full disks: what is committed stays, what is not is done again, bytes are the same."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import stores

from activation_store.layout import commit_records as commits
from activation_store.layout.arrays import COMMITS
from activation_store.layout.checksummed_json import read_checksummed_json
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from core.errors import StorageError


def dump_and_tell(pipe: Connection, rows: Path, out: Path, model: ModelFiles) -> None:
    """Dump in a process of its own, which says when its first shard begins, and when it is done."""
    stores.fill(rows, out, model, progress=lambda done, total, note="": pipe.send(done))
    pipe.send(None)


def filling(rows: Path, out: Path, model: ModelFiles) -> tuple[BaseProcess, Connection]:
    """Return a process that has begun to fill the store at `out`, and what it tells."""
    context = multiprocessing.get_context("fork")  # torch and transformers are loaded already
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=dump_and_tell, args=(theirs, rows, out, model), daemon=True)
    child.start()
    theirs.close()
    assert ours.poll(60), "the dump did not begin"
    assert ours.recv() is not None
    return child, ours


def seconds_to_fill(rows: Path, out: Path, model: ModelFiles) -> float:
    """How long an undisturbed dump fills, on this machine as busy as it is now."""
    child, told = filling(rows, out, model)
    start = time.perf_counter()
    while told.recv() is not None:
        pass
    seconds = time.perf_counter() - start
    child.join(30)
    return seconds


def kill_during(delay: float, rows: Path, out: Path, model: ModelFiles) -> bool:
    """SIGKILL a dump `delay` seconds after it began to fill; whether that was in time."""
    child, _ = filling(rows, out, model)
    time.sleep(delay)
    child.kill()
    child.join(30)
    return child.exitcode == -signal.SIGKILL


def committed_tokens(out: Path) -> int:
    found = commits.read_commits(out, read_checksummed_json(out / "plan.json")["digest"])
    return sum(commit.tokens for commit in found.values())


def test_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(0)
    counted = stores.CountedTokens(monkeypatch)
    in_time, total = 0, read_checksummed_json(whole / "plan.json")["tokens"]
    for run in range(6):
        out = tmp_path / str(run)
        whole_s = seconds_to_fill(rows, tmp_path / f"{run} undisturbed", model)
        for share in (0.8, 0.4):  # the second finds less to do
            in_time += kill_during(chance.uniform(0, share * whole_s), rows, out, model)
        left = total - committed_tokens(out)
        counted.tokens = 0
        counts = stores.fill(rows, out, model)
        assert counted.tokens == counts.forward_tokens == left
        assert stores.contents(out) == stores.contents(whole)
    assert in_time >= 6, "too few kills hit a dump under way to say anything"


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_what_a_killed_writer_left_is_neither_taken_nor_kept(
    shards: int,
    rows: Path,
    model: ModelFiles,
    whole: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores.uncommit(store, *range(shards, len(commits.list_commit_paths(store))))
    (store / "acts" / "L0" / "c.4.0").write_bytes(b"half")
    (store / "acts" / "L0" / "c.4.0.abc.partial").write_bytes(b"half")
    (store / "commits" / ".000004.json.1.2.tmp").write_bytes(b"{")
    left = read_checksummed_json(store / "plan.json")["tokens"] - committed_tokens(store)
    counted = stores.CountedTokens(monkeypatch)
    assert stores.fill(rows, store, model).forward_tokens == counted.tokens == left
    assert stores.contents(store) == stores.contents(whole)


def test_a_stop_between_shards_loses_none_of_them(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    half = read_checksummed_json(whole / "plan.json")["tokens"] // 2

    def stop(done: int, total: int, note: str = "") -> None:
        if done > half:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stores.fill(rows, tmp_path, model, progress=stop)
    kept = {name: data for name, data in stores.contents(tmp_path).items() if "commits/" in name}
    assert len(kept) >= 1
    counts = stores.fill(rows, tmp_path, model)
    assert 0 < counts.forward_tokens < counts.tokens
    assert stores.contents(tmp_path) == stores.contents(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system with room for some shards, but not for all."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_the_dump_goes_on_after_it(
    rows: Path, model: ModelFiles, whole: Path, small_disk: Path, tmp_path: Path
) -> None:
    out = small_disk / "store"
    with pytest.raises(StorageError, match=r"disk is full. Finished work is kept; free some space"):
        stores.fill(rows, out, model)
    kept = committed_tokens(out)
    assert kept > 0
    roomy = shutil.copytree(out, tmp_path / "roomy")
    counts = stores.fill(rows, roomy, model)
    assert counts.forward_tokens == counts.tokens - kept
    assert stores.contents(roomy) == stores.contents(whole)


def test_a_full_disk_while_a_record_is_written_loses_that_shard_alone(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "000002.json" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match="the disk is full"):
            stores.fill(rows, tmp_path, model)
    names = [path.name for path in commits.list_commit_paths(tmp_path)]
    assert names[:2] == ["000000.json", "000001.json"]
    assert "000002.json" not in names
    stores.fill(rows, tmp_path, model)
    assert stores.contents(tmp_path) == stores.contents(whole)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_one_line(
    number: int, rows: Path, model: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.write_bytes

    def refused(path: Path, data: bytes) -> int:
        if path.parent.name == COMMITS:
            raise OSError(number, os.strerror(number))
        return plain(path, data)

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(StorageError, match=r"000000\.json: cannot write here"):
        stores.fill(rows, tmp_path, model)


def test_readers_see_the_committed_shards_of_a_dump_under_way(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    seen = []

    def look(done: int, total: int, note: str = "") -> None:
        store = ActivationStore(tmp_path)
        readable = [e for e, placed in store.index.items() if placed.shard in store.commits]
        seen.append(len(readable))
        for example in readable[-2:]:
            assert store.read(example, 2).tolist() == complete.read(example, 2).tolist()

    complete = ActivationStore(whole)
    stores.fill(rows, tmp_path, model, progress=look)
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert 0 < seen[-1] < len(complete.index)
