"""The activations of each condition."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import chain
import numpy as np
import pytest

from activation_store.read.reader import ActivationStore
from core.records.tables import View
from evaluators.config import ConditionName, EvaluateConfig
from evaluators.measure.conditions import (
    CONDITIONS,
    Condition,
    EvalContext,
    pair_with_other_controls,
)
from trainers.data.contrast import find_stored_swaps
from trainers.data.rows import Row, count_visible_tokens, load_rows

DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"
VIEWS: tuple[View, ...] = ("stimulus",)
ELSEWHERE = 0
"""A stored layer that the decoder does not read."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[ActivationStore, list[Row]]:
    rows = [*chain.rows_of(VIEWS, {"test": 24}), chain.row(90, view="stimulus", kind="extractive")]
    folder = tmp_path_factory.mktemp("conditions")
    made = chain.make(folder, rows, layers=(ELSEWHERE, 1, chain.LAYER))
    opened = ActivationStore(made.store)
    return opened, load_rows(made.conversations, made.questions, opened)


def pairs(store: tuple[ActivationStore, list[Row]], seed: int = 0) -> dict[str, Row]:
    opened, rows = store
    return pair_with_other_controls(rows, rows, opened, masking=True, seed=seed)


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
            own = count_visible_tokens(opened, row, masking=True)
            away = [
                abs(count_visible_tokens(opened, other, masking=True) - own)
                for other in rows
                if other.conversation.kind == row.conversation.kind and other is not row
            ]
            other = count_visible_tokens(opened, found[row.example_id], masking=True)
            assert abs(other - own) == min(away)


def test_partners_are_drawn_by_seed_and_not_by_order(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    opened, rows = store
    turned = pair_with_other_controls(rows[::-1], rows[::-1], opened, masking=True, seed=0)
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
    assert len(pair_with_other_controls(pair, pair, opened, masking=True, seed=0)) == 2
    grouped = [Row(replace(row.conversation, group_id="one"), row.questions) for row in pair]
    assert pair_with_other_controls(grouped, grouped, opened, masking=True, seed=0) == {}


def scene_of(
    store: tuple[ActivationStore, list[Row]], *, layer: int = chain.LAYER, seed: int = 0
) -> EvalContext:
    """Make the context of the first 24 rows, the mean token being that of all."""
    opened, rows = store
    partners = pairs(store)
    return EvalContext(opened, layer, masking=True, seed=seed, partners=partners, train=rows)


def stored(store: tuple[ActivationStore, list[Row]], row: Row, layer: int) -> np.ndarray:
    opened = store[0]
    return opened.read(row.example_id, layer)[-count_visible_tokens(opened, row, masking=True) :]


def test_every_name_that_the_yaml_knows_is_a_condition() -> None:
    assert tuple(CONDITIONS) == get_args(ConditionName)
    assert all(name == one.name for name, one in CONDITIONS.items())


def test_the_mean_token_is_over_all_visible_tokens(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    every = [stored(store, row, chain.LAYER) for row in store[1]]
    np.testing.assert_allclose(
        scene_of(store).mean_token[0], np.concatenate(every).mean(0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", ["mean", "none", "noise", "wrong_layer"])
def test_what_stands_for_a_row_keeps_its_length_and_positions(
    store: tuple[ActivationStore, list[Row]], name: str
) -> None:
    row, context = store[1][0], scene_of(store)
    own, found = context.own_reading(row), CONDITIONS[name].read(row, context)
    assert (found.n, found.first_position) == (own.n, own.first_position)


def test_right_is_the_rows_own_and_other_its_partners(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    context = scene_of(store)
    for row in store[1][:4]:
        right, other = (CONDITIONS[name].read(row, context) for name in ("right", "other"))
        partner = context.partners[row.example_id]
        assert right.vectors is not None
        assert other.vectors is not None
        np.testing.assert_array_equal(right.vectors, stored(store, row, chain.LAYER))
        np.testing.assert_array_equal(other.vectors, stored(store, partner, chain.LAYER))


def test_mean_repeats_one_token(store: tuple[ActivationStore, list[Row]]) -> None:
    row, context = store[1][0], scene_of(store)
    found = CONDITIONS["mean"].read(row, context)
    assert found.vectors is not None
    np.testing.assert_array_equal(found.vectors, np.tile(context.mean_token, (found.n, 1)))


def test_none_leaves_the_placeholders_alone(store: tuple[ActivationStore, list[Row]]) -> None:
    assert CONDITIONS["none"].read(store[1][0], scene_of(store)).vectors is None


def test_noise_has_the_norms_of_the_row_and_other_directions(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    row = store[1][0]
    found = CONDITIONS["noise"].read(row, scene_of(store)).vectors
    own = stored(store, row, chain.LAYER)
    assert found is not None
    norms = np.linalg.norm(own, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), norms, rtol=1e-5)
    cosines = (found * own).sum(1) / norms**2
    assert np.abs(cosines).max() < 0.75


def test_noise_is_each_rows_own_and_drawn_by_seed(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    def noise(row: Row, seed: int = 0) -> np.ndarray:
        found = CONDITIONS["noise"].read(row, scene_of(store, seed=seed)).array
        assert found is not None
        return found

    first, second = store[1][:2]
    np.testing.assert_array_equal(noise(first), noise(first))
    assert not np.allclose(noise(first)[0], noise(second)[0])
    assert not np.allclose(noise(first)[0], noise(first, seed=1)[0])


@pytest.mark.parametrize("layer", [chain.LAYER, 1])
def test_wrong_layer_is_the_farthest_stored_layer_and_of_two_the_earlier(
    store: tuple[ActivationStore, list[Row]], layer: int
) -> None:
    row = store[1][0]
    found = CONDITIONS["wrong_layer"].read(row, scene_of(store, layer=layer)).vectors
    assert found is not None
    np.testing.assert_array_equal(found, stored(store, row, ELSEWHERE))


def test_the_docs_show_how_to_add_a_condition(
    store: tuple[ActivationStore, list[Row]],
) -> None:
    text = DOCS.read_text()
    (block,) = re.findall(r"```python\n(# evaluators/measure/conditions/.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    (condition,) = (value for value in namespace.values() if isinstance(value, Condition))
    row, context = store[1][0], scene_of(store)
    found, own = condition.read(row, context), context.own_reading(row)
    assert found.vectors is not None
    assert own.vectors is not None
    np.testing.assert_array_equal(found.vectors, own.vectors[::-1])
    assert f"# evaluators/measure/conditions/{condition.name}.py" in block


@pytest.mark.parametrize("conditions", [("right",), ("right", "other", "other")])
def test_right_and_other_are_always_among_them(conditions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="distinct conditions with `right` and `other`"):
        EvaluateConfig.model_validate({"conditions": conditions})


def swapped_context(made: chain.Chain, rows: list[Row]) -> EvalContext:
    table = [row.conversation for row in rows]
    opened = ActivationStore(made.store)
    found = find_stored_swaps(table, opened, "test", "system")
    swaps = {example: swap.swapped.example_id for example, swap in found.items()}
    return EvalContext(opened, chain.LAYER, masking=True, seed=0, swaps=swaps)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[chain.Chain, list[Row]]:
    made = chain.make(
        tmp_path_factory.mktemp("masked"), chain.rows_of(("control", "system"), {"test": 8})
    )
    rows = load_rows(made.conversations, made.questions, ActivationStore(made.store))
    return made, [row for row in rows if row.conversation.view == "system"]


def test_a_swapped_row_has_the_same_visible_tokens_at_the_same_positions(
    masked: tuple[chain.Chain, list[Row]],
) -> None:
    made, rows = masked
    context = swapped_context(made, rows)
    assert set(context.swaps) == {row.example_id for row in rows}
    for row in rows:
        own, found = context.own_reading(row), CONDITIONS["swapped"].read(row, context)
        swapped = context.store.tokens(context.swaps[row.example_id])
        mine = context.store.tokens(row.example_id)
        assert swapped[-own.n :].tolist() == mine[-own.n :].tolist()
        assert swapped.tolist() != mine.tolist()
        assert (found.n, found.first_position) == (own.n, own.first_position)
        assert own.vectors is not None
        assert found.vectors is not None
        assert not np.array_equal(own.vectors, found.vectors)


def test_shifted_positions_are_the_rows_own_activations_elsewhere(
    masked: tuple[chain.Chain, list[Row]],
) -> None:
    made, rows = masked
    context = swapped_context(made, rows)
    moved = 0
    for row in rows:
        own, found = context.own_reading(row), CONDITIONS["shifted_positions"].read(row, context)
        np.testing.assert_array_equal(own.vectors, found.vectors)
        place = context.store.place(context.swaps[row.example_id])
        assert found.first_position == place.withheld
        moved += found.first_position != own.first_position
    assert moved > 0


def test_view_control_has_no_swaps(masked: tuple[chain.Chain, list[Row]]) -> None:
    made, rows = masked
    table = [row.conversation for row in rows]
    assert find_stored_swaps(table, ActivationStore(made.store), "test", "control") == {}
