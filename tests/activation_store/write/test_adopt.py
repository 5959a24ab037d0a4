"""A finished store in place of a dump."""

from __future__ import annotations

from pathlib import Path

import pytest
import stores
import tiny

from activation_store.layout.config import CaptureConfig
from activation_store.layout.root_record import finished_root
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.verify import verify
from activation_store.write.adopt import adopt_store
from activation_store.write.dump import DumpResult
from core.errors import StoreError


def adopt(store: Path, out: Path, rows: Path, model: ModelFiles, **changes: object) -> DumpResult:
    config = CaptureConfig.model_validate({**stores.CAPTURE.model_dump(), **changes})
    return adopt_store(store, out, conversations=rows, config=config, model=model)


def test_the_store_is_the_same_and_its_shards_are_on_the_disk_once(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    result = adopt(whole, tmp_path / "out", rows, model, layers=(2,))
    assert stores.contents(tmp_path / "out") == stores.contents(whole)
    assert finished_root(tmp_path / "out") == finished_root(whole)
    assert verify(tmp_path / "out").damaged == ()
    assert result.bytes == sum(map(len, stores.contents(whole).values()))
    assert (result.forward_tokens, result.dropped) == (0, {})
    for name in ("acts/L0/c.0.0", "tokens/c.0"):
        assert (tmp_path / "out" / name).stat().st_ino == (whole / name).stat().st_ino


def test_conversations_that_are_not_in_it_are_counted(
    model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    more = stores.table(tmp_path / "more", stores.conversations(8))
    assert adopt(whole, tmp_path / "out", more, model).dropped == {"not_in_store": 8}
    others = stores.table(tmp_path / "others", [stores.conversation(99, "control")])
    with pytest.raises(StoreError, match="none of the 1 conversations is in it"):
        adopt(whole, tmp_path / "none", others, model)


def test_another_target_is_refused(rows: Path, whole: Path, tmp_path: Path) -> None:
    other = resolve_model(str(tiny.save(tmp_path / "other", seed=7)))
    with pytest.raises(StoreError, match="it was taken from another target: weights"):
        adopt(whole, tmp_path / "out", rows, other)


def test_a_layer_that_it_lacks_is_refused(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"it has layers \[0, 2\], got 1"):
        adopt(whole, tmp_path / "out", rows, model, layers=(1,))


def test_a_store_that_is_not_finished_or_not_there_is_refused(
    rows: Path, model: ModelFiles, store: Path, tmp_path: Path
) -> None:
    (store / "canary.json").unlink()
    with pytest.raises(StoreError, match="its dump has not finished"):
        adopt(store, tmp_path / "out", rows, model)
    with pytest.raises(StoreError, match="no activation store is here"):
        adopt(tmp_path / "nothing", tmp_path / "out", rows, model)


def test_a_damaged_store_is_refused_by_file(
    rows: Path, model: ModelFiles, store: Path, tmp_path: Path
) -> None:
    stores.flip(store / "acts/L0/c.1.0")
    with pytest.raises(StoreError, match=r"acts/L0/c.1.0 is not as it was committed"):
        adopt(store, tmp_path / "out", rows, model)
    assert not (tmp_path / "out" / "canary.json").exists()
