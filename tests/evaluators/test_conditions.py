"""The activations of each condition."""

from __future__ import annotations

from dataclasses import replace

import chain
import numpy as np
import pytest

from activation_store.reader import ActivationStore
from decoder.batch import Reading
from evaluators.conditions import Given, mean_token, pair_others, uninformed
from trainers.rows import Row, load_rows, visible_tokens

VIEWS = ("stimulus",)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActivationStore, list[Row]]:
    rows = [*chain.rows_of(VIEWS, {"test": 24}), chain.row(90, view="stimulus", kind="extractive")]
    made = chain.make(tmp_path_factory.mktemp("conditions"), rows)
    opened = ActivationStore(made.store)
    return opened, load_rows(made.conversations, made.questions, opened)


def pairs(store: tuple[ActivationStore, list[Row]], seed: int = 0) -> dict[str, Row]:
    opened, rows = store
    return pair_others(rows, rows, opened, masking=True, seed=seed)


def test_a_partner_is_of_the_same_kind_and_of_another_group(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    found = pairs(store)
    for row in store[1]:
        if row.example_id in found:
            own, other = row.conversation, found[row.example_id].conversation
            assert own.kind == other.kind
            assert own.group_id != other.group_id
            assert own.control_id != other.control_id


def test_a_partner_is_of_the_nearest_visible_length(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    opened, rows = store
    found = pairs(store)
    for row in rows:
        if row.example_id in found:
            own = visible_tokens(opened, row, masking=True)
            away = [
                abs(visible_tokens(opened, other, masking=True) - own)
                for other in rows
                if other.conversation.kind == row.conversation.kind and other is not row
            ]
            other = visible_tokens(opened, found[row.example_id], masking=True)
            assert abs(other - own) == min(away)


def test_partners_are_drawn_by_seed_and_not_by_order(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    opened, rows = store
    turned = pair_others(rows[::-1], rows[::-1], opened, masking=True, seed=0)
    assert turned == pairs(store)
    assert pairs(store, seed=1) != pairs(store)


def test_a_row_alone_of_its_kind_has_no_partner(store: tuple[ActivationStore, list[Row]]) -> None:
    alone = [row for row in store[1] if row.conversation.kind == "extractive"]
    assert len(alone) == 1
    assert len(pairs(store)) == 24
    assert alone[0].example_id not in pairs(store)


def test_rows_of_one_group_are_no_partners(store: tuple[ActivationStore, list[Row]]) -> None:
    opened, rows = store
    pair = rows[:2]
    assert len(pair_others(pair, pair, opened, masking=True, seed=0)) == 2
    grouped = [Row(replace(row.conversation, group_id="one"), row.questions) for row in pair]
    assert pair_others(grouped, grouped, opened, masking=True, seed=0) == {}


def test_the_mean_token_is_over_all_visible_tokens(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    opened, rows = store
    found = mean_token(rows, opened, chain.LAYER, masking=True)
    every = [
        opened.read(row.example_id, chain.LAYER)[-visible_tokens(opened, row, masking=True) :]
        for row in rows
    ]
    np.testing.assert_allclose(found, np.concatenate(every).mean(0), rtol=1e-4, atol=1e-6)


@pytest.fixture
def reading() -> Reading:
    vectors = np.random.default_rng(0).normal(size=(5, 32)) * np.arange(1, 6)[:, None]
    return Reading(vectors.astype(np.float32), 5, 7)


@pytest.mark.parametrize("condition", ["mean", "none", "noise"])
def test_uninformed_readings_keep_length_and_positions(reading: Reading, condition: str) -> None:
    found = uninformed(reading, condition, mean=np.ones(32, np.float32), seed=0)
    assert (found.n, found.first_position) == (5, 7)


def test_mean_repeats_one_token(reading: Reading) -> None:
    mean = np.arange(32, dtype=np.float32)
    found = uninformed(reading, "mean", mean=mean).vectors
    np.testing.assert_array_equal(found, np.tile(mean, (5, 1)))


def test_none_leaves_the_placeholders_alone(reading: Reading) -> None:
    assert uninformed(reading, "none").vectors is None


def test_noise_has_the_norms_of_the_row_and_other_directions(reading: Reading) -> None:
    found = uninformed(reading, "noise", seed=3).vectors
    assert found is not None
    assert reading.vectors is not None
    norms = np.linalg.norm(reading.vectors, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), norms, rtol=1e-5)
    cosines = (found * reading.vectors).sum(1) / norms**2
    assert np.abs(cosines).max() < 0.6
    again = uninformed(reading, "noise", seed=3).vectors
    np.testing.assert_array_equal(found, again)


def test_given_is_the_readings_of_the_rows_in_order(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    opened, rows = store
    own, partners = rows[:4], rows[4:8]
    given = Given(own, partners, rows, opened, chain.LAYER, masking=True, seed=0)
    for condition, source in (("right", own), ("other", partners)):
        for found, row in zip(given(condition), source, strict=True):
            assert found.vectors is not None
            stored = opened.read(row.example_id, chain.LAYER)
            np.testing.assert_array_equal(found.vectors, stored[found.first_position :])
    noise = [r.vectors for r in given("noise")]
    assert noise[0] is not None
    assert not np.array_equal(noise[0][0], noise[1][0])  # each row has its own
