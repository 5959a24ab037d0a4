"""What is written before the target runs: token ids and segments, in files of many shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
import zarr

from activation_store.layout import plan as layout
from activation_store.layout import plan_files
from activation_store.layout.arrays import array_file
from activation_store.layout.plan import Plan
from activation_store.layout.plan_files import read_plan, write_plan
from activation_store.model_files.files import ModelFiles
from activation_store.read.reader import ActivationStore
from activation_store.tokens.token_table import TokenTable
from activation_store.tokens.tokens import Tokens
from activation_store.write.prepared import prepare_dump
from core import files
from core.errors import DamagedError, StoreError

SHARD_ROWS = stores.CAPTURE.shard_rows or 0


@pytest.fixture
def planned(rows: Path, model: ModelFiles) -> tuple[Plan, TokenTable]:
    """Return a plan of several shards, and the tokens that it lays out."""
    prepared = prepare_dump(rows, stores.CAPTURE, model)
    return prepared.make_plan(), prepared.tokens


@pytest.mark.parametrize("shards", [1, 2, 3, 100])
def test_tokens_are_where_the_plan_puts_them_however_many_shards_share_a_file(
    shards: int,
    planned: tuple[Plan, TokenTable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, tokens = planned
    monkeypatch.setattr(layout, "_TOKEN_ROWS", shards * SHARD_ROWS)
    write_plan(tmp_path, plan, tokens)
    n_files = -(-plan.n_shards // shards)
    assert len(list((tmp_path / "tokens").glob("c.*"))) == n_files == plan.token_files
    store, group = ActivationStore(tmp_path), _group(tmp_path)
    by_zarr: dict[str, Any] = {name: np.asarray(group[name][:]) for name in ("tokens", "segments")}
    for s in plan.index.values():
        own, span = tokens[s.example_id], slice(s.row_start, s.row_start + s.n_tokens)
        for name, there, expected in (
            ("tokens", store.tokens(s.example_id), own.ids),
            ("segments", store.segments(s.example_id), own.segments),
        ):
            assert there.tolist() == by_zarr[name][span].tolist() == expected.tolist()
    written = [path for name in ("tokens", "segments") for path in tmp_path.glob(f"{name}/c.*")]
    assert plan.token_bytes == sum(path.stat().st_size for path in written)


def test_zarr_notices_a_flipped_bit_of_a_token(
    planned: tuple[Plan, TokenTable], tmp_path: Path
) -> None:
    write_plan(tmp_path, *planned)
    stores.flip(tmp_path / array_file("tokens", 0))
    with pytest.raises(ValueError, match="checksum"):
        _group(tmp_path)["tokens"][:]


def test_a_negative_token_id_is_named_and_there_is_no_plan(
    planned: tuple[Plan, TokenTable], tmp_path: Path
) -> None:
    plan, tokens = planned
    wrong = plan.index.at(5).example_id
    spoilt = TokenTable(
        (name, Tokens(-own.ids if name == wrong else own.ids, own.segments, own.withheld))
        for name, own in tokens.items()
    )
    with pytest.raises(StoreError, match=f"example {wrong}: a token id is negative"):
        write_plan(tmp_path, plan, spoilt)
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("file", ["tokens/c.0", "segments/c.0", "index.parquet", "zarr.json"])
def test_what_does_not_read_back_is_not_planned(
    file: str,
    planned: tuple[Plan, TokenTable],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = files.write_files

    def rot(written: dict[Path, bytes]) -> None:
        plain(written)
        if tmp_path / file in written:
            stores.flip(tmp_path / file)

    monkeypatch.setattr(plan_files, "write_files", rot)
    with pytest.raises(DamagedError, match=f"{file}: read back other bytes"):
        write_plan(tmp_path, *planned)
    assert not (tmp_path / "plan.json").exists()


def test_tokens_can_be_read_before_a_shard_is_committed(
    planned: tuple[Plan, TokenTable], tmp_path: Path
) -> None:
    plan, tokens = planned
    write_plan(tmp_path, plan, tokens)
    (tmp_path / "commits").mkdir()
    example = plan.index.at(0).example_id
    assert ActivationStore(tmp_path).tokens(example).tolist() == tokens[example].ids.tolist()
    assert read_plan(tmp_path)["token_rows"] == plan.n_shards * SHARD_ROWS


def _group(root: Path) -> Any:
    return zarr.open_group(root, mode="r")
