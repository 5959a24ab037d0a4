"""The order of training rows, and rows as items and batches."""

from __future__ import annotations

import chain
import numpy as np
import pytest

from activation_store.read.reader import ActivationStore
from decoder.visible_tokens import ReadLayers
from trainers.data.dataset import (
    EpochSampler,
    RowDataset,
    order_in_buckets,
    split_into_micro_batches,
)
from trainers.data.decoder_inputs import make_activation_inputs
from trainers.data.rows import load_rows, select

LENGTHS = [int(n) for n in np.random.default_rng(0).integers(5, 500, 203)]


def order(epoch: int = 0, seed: int = 0, batch: int = 8) -> list[int]:
    return order_in_buckets(LENGTHS, batch, seed=seed, epoch=epoch)


def test_an_epoch_takes_every_row_once() -> None:
    assert sorted(order()) == list(range(203))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert order(3, 7) == order(3, 7)
    assert len({tuple(order(epoch, seed)) for epoch in range(3) for seed in range(3)}) == 9


def test_batches_hold_rows_of_like_length() -> None:
    def padding(indices: list[int]) -> int:
        lengths = np.array([LENGTHS[i] for i in indices[:200]]).reshape(-1, 8)
        return int((lengths.max(1, keepdims=True) - lengths).sum())

    shuffled = [int(i) for i in np.random.default_rng(1).permutation(203)]
    assert padding(order()) < 0.15 * padding(shuffled)


def test_batches_do_not_come_by_length() -> None:
    means = np.array([LENGTHS[i] for i in order()[:200]]).reshape(-1, 8).mean(1)
    assert abs(np.corrcoef(means, np.arange(25))[0, 1]) < 0.5


def test_a_short_batch_is_the_last_so_that_the_loader_cuts_where_we_did() -> None:
    window = order_in_buckets([1] * 8 + [900] * 3, 4, seed=5, window=99)
    batches = [window[i : i + 4] for i in range(0, 11, 4)]
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(batches[2]) == [8, 9, 10]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> RowDataset:
    made = chain.make(tmp_path_factory.mktemp("data"), chain.rows_of(("control", "system")))
    store = ActivationStore(made.store)
    rows = load_rows(made.conversations, made.questions, store)
    chosen = select(rows, split="train", views=("control", "system"), most=None, seed=0)
    prompt = chain.decoder(made).prompt
    inputs = make_activation_inputs(
        store, layers=lambda example, epoch: ReadLayers((chain.LAYER,)), masking=True
    )
    return RowDataset(chosen, inputs, prompt)


def test_an_item_is_the_visible_activations_and_the_turns(dataset: RowDataset) -> None:
    for i, row in enumerate(dataset.rows):
        reading, turns = dataset[i][:2]
        masked = row.conversation.view == "system"
        assert (reading.first_position > 0) == masked
        assert reading.vectors is not None
        assert reading.vectors.shape == (reading.n, 32)
        assert len(turns) == len(row.questions)


def test_the_length_of_an_item_is_what_it_costs(dataset: RowDataset) -> None:
    for i, length in enumerate(dataset.lengths):
        reading, turns = dataset[i][:2]
        assert length == reading.n + sum(len(turn.ids) for turn in turns)


def test_rows_are_taken_with_their_epoch_in_the_order_of_its_lengths(
    dataset: RowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {p: np.random.default_rng(p).permutation(len(dataset)).tolist() for p in (0, 1)}
    monkeypatch.setattr(dataset, "lengths_in_epoch", lengths.__getitem__)
    sampler = EpochSampler(dataset, 4, seed=5)
    assert len(sampler) == len(dataset)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        buckets = order_in_buckets(lengths[epoch], 4, seed=5, epoch=epoch)
        assert list(sampler) == [(index, epoch) for index in buckets]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1000, [[1, 3, 0, 2]]),
        (120, [[1, 3], [0, 2]]),
        (60, [[1], [3], [0, 2]]),
        (1, [[1], [3], [0], [2]]),
    ],
)
def test_micro_batches_hold_rows_of_like_length_up_to_a_limit(
    most: int, expected: list[list[int]]
) -> None:
    assert split_into_micro_batches([30, 60, 20, 50], most) == expected


def test_the_micro_batches_of_a_batch_hold_its_rows(dataset: RowDataset) -> None:
    items = [dataset[i] for i in range(6)]
    assert len(dataset.collate_micro_batches(items)["micro_batches"]) == 1
    dataset.micro_batch_tokens = 1
    parts = dataset.collate_micro_batches(items)["micro_batches"]
    assert [len(part["row_of"]) for part in parts] == [2] * 6
    whole = dataset.collate(items)
    assert sum(len(part["targets"]) for part in parts) == len(whole["targets"])
    dataset.micro_batch_tokens = 1 << 62


def test_a_batch_holds_all_questions_of_its_rows(dataset: RowDataset) -> None:
    batch = dataset.collate([dataset[0], dataset[1], dataset[2]])
    assert batch["row_of"].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(batch["vectors"]) == sum(dataset[i][0].n for i in range(3))
