"""What a store will take, told before there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import stores

from activation_store.model_files.files import ModelFiles
from activation_store.write.estimate import store_size


def test_raw_bytes_are_exact_and_no_model_is_loaded(
    rows: Path, model: ModelFiles, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("activation_store.write.estimate.load_model")
    found = store_size(rows, config=stores.CAPTURE, model=model, runtime=stores.RUNTIME)
    assert found.raw_bytes == sum(path.stat().st_size for path in whole.rglob("c.*"))
    assert found.lossless_bytes is None


def test_packed_bytes_are_told_from_a_sample(rows: Path, model: ModelFiles, tmp_path: Path) -> None:
    config = stores.CAPTURE.model_copy(update={"codec": "lossless", "shard_rows": 8192})
    found = store_size(rows, config=config, model=model, runtime=stores.RUNTIME, sampled=True)
    stores.fill(rows, tmp_path, model, codec="lossless", shard_rows=8192)
    taken = sum(path.stat().st_size for path in (tmp_path / "acts").rglob("c.*"))
    assert found.lossless_bytes == pytest.approx(taken, rel=0.2)
    assert found.lossless_bytes is not None
    assert found.lossless_bytes < found.raw_bytes
