"""Committing shards in the background: written, synced, read back, then published."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
import torch

from activation_store.layout.commit_records import commit_path, list_commit_paths
from activation_store.layout.file_digests import digest_file
from activation_store.layout.shard_image import ShardImage, make_shard_image
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.target.host_copy import to_stored
from activation_store.write import shard_writer
from activation_store.write.prepared import prepare_dump
from core.errors import DamagedError


@pytest.mark.parametrize("damage", [stores.flip, stores.truncate])
def test_a_write_that_does_not_read_back_is_not_committed(
    damage: Callable[[Path], None],
    rows: Path,
    model: ModelFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = shard_writer._write_image

    def rot(path: Path, image: ShardImage) -> None:
        plain(path, image)
        if path.match("acts/L*/c.1.0"):
            damage(path)

    monkeypatch.setattr(shard_writer, "_write_image", rot)
    with pytest.raises(DamagedError, match=r"acts/L\d+/c.1.0: read back other bytes"):
        stores.fill(rows, tmp_path, model)
    assert len(list_commit_paths(tmp_path)) == 1


@pytest.mark.parametrize("most", [1, 1000])
def test_a_system_that_writes_less_than_asked_is_asked_again(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_shard_image(np.arange(300_000, dtype=np.int32), 100)
    plain = os.writev
    monkeypatch.setattr(os, "writev", lambda file, pieces: plain(file, [pieces[0][:most]]))
    shard_writer._write_image(tmp_path / "x", image)
    assert digest_file(tmp_path / "x") == image.digest
    assert (tmp_path / "x").read_bytes() == b"".join(image.pieces())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_number_that_is_not_finite_is_seen_in_each_format(dtype: str, value: float) -> None:
    values = torch.full((4, 6), torch.finfo(getattr(torch, dtype)).max).mul(
        torch.tensor([1, -1, 0]).repeat(2)
    )
    assert shard_writer._all_finite(to_stored(values, dtype), dtype)
    values[2, 3] = value
    assert not shard_writer._all_finite(to_stored(values, dtype), dtype)


def test_a_shard_that_is_committed_twice_is_the_same_shard(
    rows: Path, model: ModelFiles, whole: Path, store: Path
) -> None:
    plan = prepare_dump(rows, stores.CAPTURE, model).make_plan()
    opened = ActivationStore(whole)
    content: dict[str, np.ndarray[Any, Any]] = {}
    for name in ("acts/L0", "acts/L2"):
        array = opened._arrays[name]
        content[name] = np.asarray(array[plan.shard_rows : 2 * plan.shard_rows])
    commit_path(store, 1).unlink()
    with shard_writer.ShardWriter(store, plan) as two:
        two.submit(1, content)
        two.submit(1, content)
    assert stores.contents(store) == stores.contents(whole)
