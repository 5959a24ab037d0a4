"""The commit log: a shard exists when its record does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest
import stores

from activation_store.layout import commit_records as commits
from activation_store.layout.checksummed_json import (
    CHECKSUM_FIELD,
    read_checksummed_json,
    write_checksummed_json,
)
from activation_store.layout.file_digests import find_damage
from activation_store.read.reader import ActivationStore
from core.errors import DamagedError, StorageError, StoreError


def plan_digest(root: Path) -> str:
    return str(read_checksummed_json(root / "plan.json")["digest"])


def test_a_record_counts_and_digests_its_shard(whole: Path) -> None:
    store = ActivationStore(whole)
    found = commits.read_commits(whole, plan_digest(whole))
    assert sorted(found) == list(range(store.plan["n_shards"]))
    for shard, commit in found.items():
        own = [placed for placed in store.index.values() if placed.shard == shard]
        assert commit.sequences == len(own)
        assert commit.tokens == sum(placed.n_tokens for placed in own)
        assert len(commit.files) == 2  # layers
        assert find_damage(whole, commit.files) == {}


def test_a_shard_without_a_record_is_not_there(store: Path) -> None:
    stores.uncommit(store, 1)
    opened = ActivationStore(store)
    assert 1 not in opened.commits
    assert not opened.complete
    absent = next(e for e, placed in opened.index.items() if placed.shard == 1)
    n = opened.plan["n_shards"]
    words = rf"shard 1 is not committed yet \({n - 1} of {n} are\). Finish the dump"
    with pytest.raises(StoreError, match=words):
        opened.read(absent, 0)
    present = next(e for e, placed in opened.index.items() if placed.shard == 0)
    assert len(opened.read(present, 0))


def test_a_record_of_another_plan_is_not_there(store: Path) -> None:
    stores.unfinish(store)
    path = commits.commit_path(store, 2)
    write_checksummed_json(path, {**read_checksummed_json(path), "plan": "0" * 64})
    assert 2 not in ActivationStore(store).commits


def test_a_record_under_another_number_is_refused(store: Path) -> None:
    stores.unfinish(store)
    path = commits.commit_path(store, 1)
    path.write_bytes(commits.commit_path(store, 0).read_bytes())
    with pytest.raises(DamagedError, match="it is the record of shard 0") as caught:
        ActivationStore(store)
    assert caught.value.path == path


def test_a_record_that_does_not_fit_loses_no_other(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "000001.json" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(path, data)

    found = commits.read_commits(whole, plan_digest(whole))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="the disk is full"):
        commits.write_commits(tmp_path, [found[1], found[0], found[2]])
    names = [path.name for path in commits.list_commit_paths(tmp_path)]
    assert names == ["000000.json", "000002.json"]


def test_a_record_half_written_aside_is_not_read(store: Path) -> None:
    stores.unfinish(store)
    (store / "commits" / ".000000.json.1.2.tmp").write_text("{")
    (store / "commits" / ".000000.json").write_text("{")
    assert ActivationStore(store).complete


@pytest.mark.parametrize("at", [i / 20 for i in range(21)])
def test_no_flipped_bit_of_a_checksummed_file_goes_unseen(at: float, tmp_path: Path) -> None:
    path, value = tmp_path / "x.json", {"a": [1, 2.5, None], "b": "ü", "c": {"d": True}}
    write_checksummed_json(path, value)
    assert read_checksummed_json(path) == value
    stores.flip(path, at)
    with contextlib.suppress(DamagedError):
        assert read_checksummed_json(path) == value  # a blank between two values became another


def test_the_checksum_is_no_part_of_the_value(tmp_path: Path) -> None:
    write_checksummed_json(tmp_path / "x.json", {"a": 1})
    assert CHECKSUM_FIELD in json.loads((tmp_path / "x.json").read_text())
    assert CHECKSUM_FIELD not in read_checksummed_json(tmp_path / "x.json")
