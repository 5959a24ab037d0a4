"""Stores over more rows, fewer rows, other layers: the target runs on what no store holds."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import chain
import numpy as np
import pytest
import stores
import tiny

from activation_store.layout.commit_records import commit_path
from activation_store.model_files.files import ModelFiles, resolve_model
from activation_store.read.reader import ActivationStore
from activation_store.read.verify import verify
from activation_store.write.dump import DumpResult, dump
from core.errors import StoreError

MORE = 9
"""Controls of a grown dataset; `rows` has six."""


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the conversations of `rows` and more."""
    return stores.table(tmp_path_factory.mktemp("grown"), stores.conversations(MORE))


@pytest.fixture
def filled(model: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DumpResult]:
    """Fill a store beside others; its counts have the tokens that the target ran on, counted."""
    counted = stores.CountedTokens(monkeypatch)

    def fill(rows: Path, out: Path, others: Sequence[Path], **changes: Any) -> DumpResult:
        counted.tokens = 0
        counts = stores.fill(rows, out, model, reusable=others, **changes)
        assert counts.forward_tokens == counted.tokens
        assert verify(out).damaged == ()
        return counts

    return fill


def same_rows(one: Path, other: Path, layers: Sequence[int]) -> int:
    """Compare the examples that two stores have in common; how many there are."""
    a, b = ActivationStore(one), ActivationStore(other)
    common = [example for example in a.index if example in b.index]
    for example in common:
        assert a.place(example).withheld == b.place(example).withheld
        assert np.array_equal(a.segments(example), b.segments(example))
        for layer in layers:
            assert np.array_equal(a.bits(example, layer), b.bits(example, layer))
    return len(common)


def inodes(root: Path) -> set[int]:
    return {path.stat().st_ino for path in root.glob("acts/*/c.*.0")}


def test_a_grown_dataset_computes_its_new_rows_alone_and_shares_the_shards(
    filled: Callable[..., DumpResult], whole: Path, grown: Path, tmp_path: Path
) -> None:
    counts = filled(grown, tmp_path / "more", [whole])
    before = ActivationStore(whole)
    assert counts.forward_tokens == counts.tokens - before.plan["tokens"] > 0
    assert counts.shared_shards == before.plan["n_shards"]
    assert same_rows(tmp_path / "more", whole, (0, 2)) == len(before.index)
    assert inodes(whole) < inodes(tmp_path / "more")


def test_a_store_outlives_the_one_that_it_shares_with(
    filled: Callable[..., DumpResult],
    store: Path,
    grown: Path,
    model: ModelFiles,
    tmp_path: Path,
) -> None:
    filled(grown, tmp_path / "more", [store])
    before = stores.contents(tmp_path / "more")
    shutil.rmtree(store)
    assert verify(tmp_path / "more").damaged == ()
    stores.flip(tmp_path / "more" / "acts/L0/c.1.0")
    counts = filled(grown, tmp_path / "more", [])  # mends it with its layout kept
    tokens = ActivationStore(tmp_path / "more").commits[1].tokens
    assert counts.forward_tokens == tokens
    assert stores.contents(tmp_path / "more") == before


def test_a_smaller_dataset_computes_nothing(
    filled: Callable[..., DumpResult], whole: Path, tmp_path: Path
) -> None:
    rows = stores.table(tmp_path / "rows", stores.conversations(4)[1::2])
    counts = filled(rows, tmp_path / "fewer", [whole])
    assert counts.forward_tokens == 0
    assert same_rows(tmp_path / "fewer", whole, (0, 2)) == counts.sequences


def test_a_dropped_layer_costs_nothing_and_leaves_the_other(
    filled: Callable[..., DumpResult], rows: Path, whole: Path, tmp_path: Path
) -> None:
    counts = filled(rows, tmp_path / "one", [whole], layers=[2])
    assert counts.forward_tokens == 0
    assert counts.shared_shards == counts.shards
    assert inodes(tmp_path / "one") < inodes(whole)
    same_rows(tmp_path / "one", whole, (2,))


def test_an_added_layer_leaves_the_others_as_they_are(
    filled: Callable[..., DumpResult],
    rows: Path,
    whole: Path,
    model: ModelFiles,
    tmp_path: Path,
) -> None:
    counts = filled(rows, tmp_path / "three", [whole], layers=[0, 1, 2])
    assert counts.forward_tokens == counts.tokens
    assert inodes(whole) < inodes(tmp_path / "three")
    stores.fill(rows, tmp_path / "fresh", model, layers=[1])
    same_rows(tmp_path / "three", tmp_path / "fresh", (1,))


def test_another_layout_is_copied_row_by_row(
    filled: Callable[..., DumpResult], grown: Path, whole: Path, tmp_path: Path
) -> None:
    counts = filled(grown, tmp_path / "wide", [whole], shard_rows=1024, codec="lossless")
    assert counts.shared_shards == 0
    assert counts.forward_tokens == counts.tokens - ActivationStore(whole).plan["tokens"]
    same_rows(tmp_path / "wide", whole, (0, 2))


@pytest.mark.parametrize("changes", [{"store_dtype": "float32"}, {"compute_dtype": "bfloat16"}])
def test_other_numbers_are_not_taken(
    changes: dict[str, Any],
    filled: Callable[..., DumpResult],
    rows: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    counts = filled(rows, tmp_path / "other", [whole], **changes)
    assert counts.forward_tokens == counts.tokens
    assert counts.shared_shards == 0


def test_how_many_ran_together_decides_nothing(
    filled: Callable[..., DumpResult], rows: Path, whole: Path, tmp_path: Path
) -> None:
    assert filled(rows, tmp_path / "other", [whole], batch_tokens=500).forward_tokens == 0


def test_another_targets_rows_are_not_taken(rows: Path, whole: Path, tmp_path: Path) -> None:
    other = resolve_model(str(tiny.save(tmp_path / "model", seed=1)))
    counts = stores.fill(rows, tmp_path / "store", other, reusable=[whole])
    assert counts.forward_tokens == counts.tokens


def test_damaged_rows_are_not_taken(
    filled: Callable[..., DumpResult],
    rows: Path,
    store: Path,
    whole: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stores.flip(store / "acts/L2/c.1.0")
    counts = filled(rows, tmp_path / "again", [store])
    assert "acts/L2/c.1.0 is not as it was" in caplog.text
    assert counts.forward_tokens == ActivationStore(whole).commits[1].tokens
    assert same_rows(tmp_path / "again", whole, (0, 2))


def test_unfinished_and_broken_stores_are_passed_over(
    filled: Callable[..., DumpResult], rows: Path, store: Path, tmp_path: Path
) -> None:
    stores.uncommit(store, 1)
    damaged = shutil.copytree(store, tmp_path / "damaged")
    (damaged / "plan.json").unlink()
    counts = filled(rows, tmp_path / "out", [store, damaged, tmp_path / "nowhere"])
    assert counts.forward_tokens == counts.tokens


def test_a_store_goes_on_with_the_layout_that_it_was_begun_with(
    filled: Callable[..., DumpResult], store: Path, grown: Path, tmp_path: Path
) -> None:
    filled(grown, tmp_path / "more", [store])
    expected = stores.contents(tmp_path / "more")
    stores.uncommit(tmp_path / "more", 0, 7)
    shutil.rmtree(store)
    left = [commit_path(tmp_path / "more", shard).exists() for shard in (0, 7)]
    assert left == [False, False]
    counts = filled(grown, tmp_path / "more", [])
    assert counts.shared_shards > 0
    assert 0 < counts.forward_tokens < counts.tokens
    assert stores.contents(tmp_path / "more").keys() == expected.keys()


def test_where_links_are_not_to_be_had_the_bytes_are_copied(
    filled: Callable[..., DumpResult],
    whole: Path,
    grown: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = os.link

    def refuse(there: Path, here: Path) -> None:
        if Path(here).suffix == ".link":  # Zarr links too
            raise PermissionError(errno.EPERM, "Operation not permitted")
        plain(there, here)

    monkeypatch.setattr(os, "link", refuse)
    counts = filled(grown, tmp_path / "more", [whole])
    assert counts.forward_tokens < counts.tokens
    assert not inodes(whole) & inodes(tmp_path / "more")
    assert same_rows(tmp_path / "more", whole, (0, 2))


def test_helpers_take_over_too(
    rows: Path, grown: Path, whole: Path, model: ModelFiles, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"workers": 2})
    with chain.forked_processes():
        counts = dump(
            grown, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime, reusable=[whole]
        )
    assert counts.forward_tokens == counts.tokens - ActivationStore(whole).plan["tokens"]
    assert verify(tmp_path).damaged == ()


def test_a_store_beyond_the_budget_is_refused_before_it_runs(
    rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    runtime = stores.RUNTIME.model_copy(update={"store_gb": 1e-4})
    with pytest.raises(StoreError, match=r"takes 0\.\d{3} GB .* at most 0.0001 .runtime.store_gb"):
        dump(rows, tmp_path, config=stores.CAPTURE, model=model, runtime=runtime)
    assert not (tmp_path / "plan.json").exists()
