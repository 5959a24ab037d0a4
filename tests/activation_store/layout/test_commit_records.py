"""The commit log: a shard exists when its record does."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stores
import torch

from activation_store.layout import commit_records as commits
from activation_store.layout import file_marks as marks
from activation_store.layout.sealed_json import SEAL, read_sealed, write_sealed
from activation_store.layout.shard_image import Image, shard_image
from activation_store.read.reader import ActivationStore
from activation_store.target.files import ModelFiles
from activation_store.target.to_host import to_stored
from core.errors import DamagedError, StoreError


def plan_digest(root: Path) -> str:
    return read_sealed(root / "plan.json")["digest"]


def test_a_record_counts_and_seals_its_shard(whole: Path) -> None:
    store = ActivationStore(whole)
    found = commits.read_commits(whole, plan_digest(whole))
    assert sorted(found) == list(range(store.plan["n_shards"]))
    for shard, commit in found.items():
        own = [placed for placed in store.index.values() if placed.shard == shard]
        assert commit.sequences == len(own)
        assert commit.tokens == sum(placed.n_tokens for placed in own)
        assert len(commit.files) == 4  # two layers, tokens, segments
        assert marks.broken(whole, commit.files) == {}


def test_a_shard_without_a_record_is_not_there(store: Path) -> None:
    stores.uncommit(store, 1)
    opened = ActivationStore(store)
    assert 1 not in opened.commits
    assert not opened.complete
    absent = next(e for e, placed in opened.index.items() if placed.shard == 1)
    with pytest.raises(StoreError, match=r"shard 1 is not committed yet .* Finish the dump"):
        opened.read(absent, 0)
    present = next(e for e, placed in opened.index.items() if placed.shard == 0)
    assert len(opened.read(present, 0))


def test_a_record_of_another_plan_is_not_there(store: Path) -> None:
    stores.unfinish(store)
    path = commits.commit_path(store, 2)
    write_sealed(path, {**read_sealed(path), "plan": "0" * 64})
    assert 2 not in ActivationStore(store).commits


def test_a_record_under_another_number_is_refused(store: Path) -> None:
    stores.unfinish(store)
    path = commits.commit_path(store, 1)
    path.write_bytes(commits.commit_path(store, 0).read_bytes())
    with pytest.raises(DamagedError, match="it is the record of shard 0") as caught:
        ActivationStore(store)
    assert caught.value.path == path


def test_a_record_half_written_aside_is_not_read(store: Path) -> None:
    stores.unfinish(store)
    (store / "commits" / ".000000.json.1.2.tmp").write_text("{")
    (store / "commits" / ".000000.json").write_text("{")
    assert ActivationStore(store).complete


@pytest.mark.parametrize(
    ("damage", "fault"),
    [(Path.unlink, "missing"), (stores.truncate, "truncated"), (stores.flip, "changed")],
)
def test_what_is_wrong_with_a_file_has_a_name(damage, fault: str, store: Path) -> None:
    commit = commits.read_commit(commits.commit_path(store, 0))
    name = sorted(commit.files)[1]
    damage(store / name)
    assert marks.broken(store, commit.files) == {name: fault}


@pytest.mark.parametrize("file", ["tokens/c/0", "acts/L*/c/1/0"])
@pytest.mark.parametrize("damage", [stores.flip, stores.truncate])
def test_a_write_that_does_not_read_back_is_not_committed(
    damage: Callable[[Path], None],
    file: str,
    rows: Path,
    model: ModelFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = commits._put

    def rot(path: Path, image: Image) -> None:
        plain(path, image)
        if path.match(file):
            damage(path)

    monkeypatch.setattr(commits, "_put", rot)
    named = file.replace("*", r"\d+")
    with pytest.raises(DamagedError, match=f"{named}: read back other bytes"):
        stores.fill(rows, tmp_path, model)
    assert len(commits.commit_records(tmp_path)) == file.startswith("acts")


@pytest.mark.parametrize("most", [1, 1000])
def test_a_system_that_writes_less_than_asked_is_asked_again(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = shard_image(np.arange(300_000, dtype=np.int32), 100)
    plain = os.writev
    monkeypatch.setattr(os, "writev", lambda file, pieces: plain(file, [pieces[0][:most]]))
    commits._put(tmp_path / "x", image)
    assert marks.file_mark(tmp_path / "x") == image.mark
    assert (tmp_path / "x").read_bytes() == b"".join(image.pieces())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_number_that_is_not_finite_is_seen_in_each_format(dtype: str, value: float) -> None:
    values = torch.full((4, 6), torch.finfo(getattr(torch, dtype)).max).mul(
        torch.tensor([1, -1, 0]).repeat(2)
    )
    assert commits._finite(to_stored(values, dtype), dtype)
    values[2, 3] = value
    assert not commits._finite(to_stored(values, dtype), dtype)


@pytest.mark.parametrize("at", [i / 20 for i in range(21)])
def test_no_flipped_bit_of_a_sealed_file_goes_unseen(at: float, tmp_path: Path) -> None:
    path, value = tmp_path / "x.json", {"a": [1, 2.5, None], "b": "ü", "c": {"d": True}}
    write_sealed(path, value)
    assert read_sealed(path) == value
    stores.flip(path, at)
    with contextlib.suppress(DamagedError):
        assert read_sealed(path) == value  # a blank between two values became another


def test_the_seal_is_no_part_of_the_value(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x.json", {"a": 1})
    assert SEAL in json.loads((tmp_path / "x.json").read_text())
    assert SEAL not in read_sealed(tmp_path / "x.json")
