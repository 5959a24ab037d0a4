"""Reading a store: what is found, what is kept in memory, and what is refused."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import stores

from activation_store.layout import file_digests
from activation_store.layout.arrays import to_float32
from activation_store.model_files.files import ModelFiles
from activation_store.read import reader
from activation_store.read.reader import ActivationStore
from core.errors import DataError, StoreError


def test_activations_are_float32_of_the_sequences_length(whole: Path) -> None:
    store = ActivationStore(whole)
    for example, placed in store.index.items():
        found = store.read(example, 2)
        assert found.dtype == np.float32
        assert found.shape == (placed.n_tokens, store.d_model)
        assert store.tokens(example).shape == store.segments(example).shape == (placed.n_tokens,)


def test_rows_of_a_sequence_are_its_own(whole: Path) -> None:
    store = ActivationStore(whole)
    flat = to_float32(np.asarray(store._arrays["acts/L0"][:]), "bfloat16")
    for example, placed in store.index.items():
        own = flat[placed.row_start : placed.row_start + placed.n_tokens]
        assert np.array_equal(store.read(example, 0), own)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, rows: Path, model: ModelFiles) -> Path:
    """Return the same store under the lossless codec, for reading only."""
    out = tmp_path_factory.mktemp("packed")
    stores.fill(rows, out, model, codec="lossless")
    return out


def test_lossless_activations_have_the_same_bits(whole: Path, packed: Path) -> None:
    raw, other = ActivationStore(whole), ActivationStore(packed)
    assert (raw.codec, other.codec) == ("raw", "lossless")
    for example in raw.index:
        assert np.array_equal(raw.bits(example, 2), other.bits(example, 2))


def test_lossless_is_smaller(whole: Path, packed: Path) -> None:
    def size(root: Path) -> int:
        return sum(path.stat().st_size for path in (root / "acts" / "L2").glob("c.*"))

    assert size(packed) < size(whole)


def test_a_closed_store_reads_on_and_checks_nothing_anew(
    whole: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (whole, packed):
        store = ActivationStore(folder)
        before = {example: store.bits(example, 2).copy() for example in store.index}
        store.close()
        assert store.cached_bytes == 0
        with monkeypatch.context() as patch:
            patch.setattr(reader, "find_damage", None)  # nobody calls it
            assert all(np.array_equal(store.bits(e, 2), before[e]) for e in store.index)


def test_raw_shards_are_mapped_and_hold_no_memory(whole: Path) -> None:
    store = ActivationStore(whole)
    for example in store.index:
        store.read(example, 0)
    assert store.cached_bytes == 0


def test_several_threads_read_at_once(packed: Path) -> None:
    store = ActivationStore(packed, cache_mb=0)
    alone = {example: store.read(example, 0) for example in store.index}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda example: store.read(example, 0), store.index)
            for example, values in zip(store.index, found, strict=True):
                assert np.array_equal(values, alone[example])


def test_a_store_goes_to_another_process(whole: Path) -> None:
    store = ActivationStore(whole)
    sent = pickle.loads(pickle.dumps(store))
    example = next(iter(store.index))
    assert np.array_equal(sent.read(example, 0), store.read(example, 0))


def test_more_shards_than_may_be_open_are_read(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_MAPPED", 2)
    store = ActivationStore(whole)
    for example in store.index:
        assert len(store.read(example, 0))
        assert len(store._cache) <= 2


def test_memory_stays_below_the_limit(packed: Path) -> None:
    shard = 512 * 32 * 2
    store = ActivationStore(packed, cache_mb=0)
    store._cache_bytes = 2 * shard + 100
    most = 0
    for _ in range(2):
        for example in store.index:
            store.read(example, 0)
            most = max(most, store.cached_bytes)
    assert most == 2 * shard


def test_one_shard_is_kept_whatever_the_limit(packed: Path) -> None:
    store = ActivationStore(packed, cache_mb=0)
    for example in store.index:
        assert len(store.read(example, 0))
    assert store.cached_bytes == 512 * 32 * 2


def test_the_shard_that_was_used_last_stays(packed: Path) -> None:
    store = ActivationStore(packed, cache_mb=0)
    store._cache_bytes = 2 * 512 * 32 * 2
    first = {placed.shard: example for example, placed in store.index.items()}
    for shard in (0, 1, 0, 2):  # 1 goes
        store.read(first[shard], 0)
    assert sorted(shard for _, shard in store._cache) == [0, 2]


def test_a_shard_is_hashed_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    plain = file_digests.digest_file

    def counted(path: Path) -> file_digests.FileDigest:
        hashed.append(path)
        return plain(path)

    monkeypatch.setattr(file_digests, "digest_file", counted)
    store = ActivationStore(whole, cache_mb=0)
    hashed.clear()
    for _ in range(3):
        for example in store.index:
            store.read(example, 0)
    assert len(hashed) == store.plan["n_shards"] == len(set(hashed))


def test_a_reader_cannot_change_what_the_next_one_gets(whole: Path) -> None:
    store = ActivationStore(whole)
    example = next(iter(store.index))
    with pytest.raises(ValueError, match="read-only"):
        store.tokens(example)[0] = 7
    store.read(example, 0)[:] = 0  # a conversion from bfloat16 is a copy of the caller's own
    assert store.read(example, 0).any()


def test_float32_activations_cannot_be_changed_either(
    rows: Path, model: ModelFiles, tmp_path: Path
) -> None:
    stores.fill(rows, tmp_path, model, store_dtype="float32")
    store = ActivationStore(tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        store.read(next(iter(store.index)), 0)[:] = 0


def test_an_example_that_is_not_there_is_named(whole: Path) -> None:
    store = ActivationStore(whole)
    expected = rf"example nobody is not in it \({len(store.index)} examples\)"
    with pytest.raises(DataError, match=expected):
        store.read("nobody", 0)


def test_the_stores_own_target_is_accepted(whole: Path, model: ModelFiles) -> None:
    ActivationStore(whole).check_target(model.digests())


@pytest.mark.parametrize("name", ["weights", "config", "tokenizer", "chat_template"])
def test_another_target_is_refused_with_both_sides(
    name: str, whole: Path, model: ModelFiles
) -> None:
    other = {**model.digests(), name: "0123456789abcdef" * 4}
    own = model.digests()[name][:23]
    with pytest.raises(StoreError) as caught:
        ActivationStore(whole).check_target(other)
    text = str(caught.value)
    assert f"{name} is {own}… in the store and 0123456789abcdef0123456… in the model" in text
    assert "Dump again with this model, or use the store's own" in text
    assert "\n" not in text


def test_a_target_with_an_adapter_is_another_target(whole: Path, model: ModelFiles) -> None:
    with pytest.raises(StoreError, match="adapter is absent in the store and abc in the model"):
        ActivationStore(whole).check_target({**model.digests(), "adapter": "abc"})


def test_the_layer_to_read_is_the_only_one_or_the_named_one(
    rows: Path, model: ModelFiles, whole: Path, tmp_path: Path
) -> None:
    both = ActivationStore(whole)
    assert both.only_layer(2) == 2
    with pytest.raises(StoreError, match=r"layers \[0, 2\]; say which one to read"):
        both.only_layer(None)
    with pytest.raises(StoreError, match=r"layers \[0, 2\], got 1. Dump that layer, or read"):
        both.only_layer(1)
    stores.fill(rows, tmp_path, model, layers=[1])
    assert ActivationStore(tmp_path).only_layer(None) == 1
