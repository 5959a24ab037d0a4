"""A store as a stream of batches: one order, whoever reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from activation_store.read.order import batch_order
from activation_store.read.reader import ActivationStore
from activation_store.read.stream import ActivationStream, SpanBatch, StreamConfig
from core.errors import DataError, StoreError

CONFIG = StreamConfig(batch_tokens=400, window_shards=2)


def stream(root: Path, **changes) -> ActivationStream:
    return ActivationStream(root, layer=2, **{"config": CONFIG, "pin": False, **changes})


def names(batches) -> list[tuple[str, ...]]:
    return [batch.example_ids for batch in batches]


def test_every_sequence_comes_once_with_its_own_rows(whole: Path) -> None:
    store = ActivationStore(whole)
    seen: list[str] = []
    for batch in stream(whole):
        assert batch.activations.dtype == torch.bfloat16
        parts = batch.activations.split(batch.lengths.tolist())
        tokens = batch.tokens.split(batch.lengths.tolist())
        for name, part, ids in zip(batch.example_ids, parts, tokens, strict=True):
            assert np.array_equal(part.float().numpy(), store.read(name, 2))
            assert np.array_equal(ids.numpy(), store.tokens(name))
        seen += batch.example_ids
    assert sorted(seen) == sorted(store.index)


def test_batches_keep_to_their_tokens_and_pad_little(whole: Path) -> None:
    used = padded = 0
    for batch in stream(whole):
        full = batch.padded()
        assert full.shape[0] * full.shape[1] <= 400 or len(batch.lengths) == 1
        assert not full[0, batch.lengths[0] :].any()
        used, padded = used + len(batch.tokens), padded + full.shape[0] * full.shape[1]
    assert used / padded > 0.8


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_the_order(threads: int, whole: Path) -> None:
    assert names(stream(whole, threads=threads)) == names(stream(whole))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_order(workers: int, whole: Path) -> None:
    loader = DataLoader(stream(whole), batch_size=None, num_workers=workers)
    assert names(loader) == names(stream(whole))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_order_by_turns(ranks: int, whole: Path) -> None:
    alone = names(stream(whole))
    each = [names(stream(whole, rank=r, ranks=ranks)) for r in range(ranks)]
    assert [each[i % ranks][i // ranks] for i in range(len(alone))] == alone


def test_even_gives_every_rank_the_same_number(whole: Path) -> None:
    config = CONFIG.model_copy(update={"even": True})
    counts = {len(names(stream(whole, config=config, rank=r, ranks=3))) for r in range(3)}
    assert counts == {len(names(stream(whole))) // 3}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_pass_goes_on_behind_its_cursor(workers: int, whole: Path) -> None:
    batches = list(DataLoader(stream(whole), batch_size=None, num_workers=workers))
    assert len(batches) > 4
    resumed = stream(whole)
    resumed.start(epoch=0, cursor=batches[2].cursor)
    loader = DataLoader(resumed, batch_size=None, num_workers=workers)
    assert names(loader) == names(batches[3:])


def test_a_pass_is_resumed_by_another_number_of_ranks(whole: Path) -> None:
    alone = names(stream(whole))
    first = [list(stream(whole, rank=r, ranks=2)) for r in range(2)]
    cursors = {own[0].cursor for own in first}
    assert cursors == {2}
    resumed = stream(whole)
    resumed.start(epoch=0, cursor=cursors.pop())
    assert names(resumed) == alone[2:]


def test_epochs_and_seeds_have_orders_of_their_own(whole: Path) -> None:
    other = stream(whole)
    other.start(epoch=1)
    seeded = stream(whole, config=CONFIG.model_copy(update={"seed": 1}))
    orders = [names(stream(whole)), names(other), names(seeded)]
    assert len({str(order) for order in orders}) == 3
    assert len({tuple(sorted(sum(order, ()))) for order in orders}) == 1


def test_a_window_has_few_shards_open(whole: Path) -> None:
    index = ActivationStore(whole).index
    order = batch_order(index, seed=0, epoch=0, batch_tokens=400, window_shards=2)
    first_met = list(dict.fromkeys(int(index.shard[n]) for batch in order for n in batch))
    windows = [{first_met.index(int(index.shard[n])) // 2 for n in batch} for batch in order]
    assert all(len(window) == 1 for window in windows)
    assert [*map(min, windows)] == sorted(map(min, windows))


def test_a_stream_of_some_examples(whole: Path) -> None:
    some = list(ActivationStore(whole).index)[3:9]
    assert sorted(sum(names(stream(whole, examples=some)), ())) == sorted(some)
    with pytest.raises(DataError, match="example nobody is not in it"):
        stream(whole, examples=["nobody"])


def test_a_layer_that_is_not_there_is_refused(whole: Path) -> None:
    with pytest.raises(StoreError, match=r"layers \[0, 2\], got 1"):
        ActivationStream(whole, layer=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_come_pinned(whole: Path) -> None:
    batch: SpanBatch = next(iter(stream(whole, pin=None)))
    assert batch.activations.is_pinned()
    assert batch.to("cuda").activations.device.type == "cuda"
