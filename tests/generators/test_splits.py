"""Grouped splits: no group in two of them, exact shares, and stability as data grows."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from generators.splits import SplitConfig, SplitMember, group_ids, grouped_splits, take_evenly

SMALL = st.integers(0, 12)
PAIRS = st.lists(st.tuples(SMALL.map("l{}".format), SMALL.map("c{}".format)), max_size=30)


def members(n: int, kind: str = "persona", category: str = "job") -> list[SplitMember]:
    return [
        SplitMember(
            label=f"{kind}-{category}-{i}",
            control=f"{kind} {category} {i}",
            kind=kind,
            category=category,
        )
        for i in range(n)
    ]


def groups_by_search(pairs: list[tuple[str, str]]) -> list[set[int]]:
    """Return groups by flooding, slowly: rows reached through shared labels and texts."""
    left, found = set(range(len(pairs))), []
    while left:
        group, ahead = set(), [min(left)]
        while ahead:
            i = ahead.pop()
            if i in group:
                continue
            group.add(i)
            ahead += [j for j in left if pairs[j][0] == pairs[i][0] or pairs[j][1] == pairs[i][1]]
        left -= group
        found.append(group)
    return found


@settings(deadline=None)
@given(PAIRS)
def test_groups_are_the_rows_that_reach_each_other(pairs: list[tuple[str, str]]) -> None:
    ids = group_ids(pairs)
    by_id: dict[str, set[int]] = {}
    for i, group in enumerate(ids):
        by_id.setdefault(group, set()).add(i)
    assert sorted(map(sorted, by_id.values())) == sorted(map(sorted, groups_by_search(pairs)))


@settings(deadline=None)
@given(PAIRS, st.randoms())
def test_group_ids_do_not_depend_on_the_order(
    pairs: list[tuple[str, str]], rng: random.Random
) -> None:
    of_pair = dict(zip(pairs, group_ids(pairs), strict=True))
    rng.shuffle(pairs)
    assert group_ids(pairs) == [of_pair[pair] for pair in pairs]


def test_texts_that_differ_in_case_or_space_alone_are_one() -> None:
    one, other, third = group_ids([("a", "Be kind."), ("b", " be  KIND.\n"), ("c", "Be kind")])
    assert one == other != third


def test_a_label_is_no_control_text() -> None:
    first, second = group_ids([("x", "y"), ("y", "x")])
    assert first != second


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(SMALL, SMALL, st.sampled_from(["job", "time"])), min_size=1, max_size=60),
    st.integers(0, 3),
)
def test_no_label_or_text_falls_into_two_splits(
    rows: list[tuple[int, int, str]], seed: int
) -> None:
    data = [
        SplitMember(label=f"persona-{c}-{a}", control=f"text {b}", kind="persona", category=c)
        for a, b, c in rows
    ]
    splits = [split for _, split in grouped_splits(data, SplitConfig(seed=seed))]
    for key in ("label", "control"):
        seen: dict[str, set[str]] = {}
        for member, split in zip(data, splits, strict=True):
            seen.setdefault(getattr(member, key), set()).add(split)
        assert all(len(found) == 1 for found in seen.values())


def test_shares_are_exact_for_each_kind() -> None:
    data = members(100) + members(50, "goal", "emotion")
    splits = [split for _, split in grouped_splits(data, SplitConfig(validation=0.1, test=0.2))]
    assert Counter(splits[:100]) == {"train": 70, "validation": 10, "test": 20}
    assert Counter(splits[100:]) == {"train": 35, "validation": 5, "test": 10}


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, {}),
        (1, {"train": 1}),
        (2, {"train": 2}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (4, {"train": 2, "validation": 1, "test": 1}),
    ],
)
def test_few_groups_still_leave_some_to_train_on(n: int, expected: dict[str, int]) -> None:
    splits = [split for _, split in grouped_splits(members(n), SplitConfig())]
    assert Counter(splits) == expected


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.floats(0, 0.98), st.floats(0, 0.98))
def test_train_is_never_empty(n: int, validation: float, test: float) -> None:
    if validation + test >= 1:
        return
    config = SplitConfig(validation=validation, test=test)
    found = Counter(split for _, split in grouped_splits(members(n), config))
    assert found["train"] >= 1
    if n >= 3:
        assert bool(found["test"]) == (test > 0)
        assert bool(found["validation"]) == (validation > 0)


def test_the_draw_depends_on_the_seed_and_on_nothing_else() -> None:
    data = members(40)
    one = grouped_splits(data, SplitConfig(seed=1))
    assert one == grouped_splits(data, SplitConfig(seed=1))
    assert one != grouped_splits(data, SplitConfig(seed=2))


def test_added_rows_move_few_groups() -> None:
    config = SplitConfig()
    before = grouped_splits(members(100), config)
    after = grouped_splits(members(110), config)[:100]
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    assert [group for group, _ in before] == [group for group, _ in after]
    assert moved <= 6


def test_another_share_for_validation_leaves_test_alone() -> None:
    data = members(50)
    tests = [
        {group for group, split in grouped_splits(data, config) if split == "test"}
        for config in (SplitConfig(validation=0.1), SplitConfig(validation=0.3))
    ]
    assert tests[0] == tests[1]


def test_a_held_out_category_goes_whole_to_test_ood_with_its_group() -> None:
    data = members(10) + members(10, category="time")
    linked = SplitMember(
        label="persona-time-x", control="persona job 3", kind="persona", category="time"
    )
    rows = [*data, linked]
    splits = [s for _, s in grouped_splits(rows, SplitConfig(test_ood=("persona/job",)))]
    assert set(splits[:10]) == {"test_ood"}
    assert splits[-1] == "test_ood"
    assert "test_ood" not in splits[10:20]


def test_an_unknown_category_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"no row has the category 'persona/jobb'.*did you mean 'persona/job'"
    ):
        grouped_splits(members(3), SplitConfig(test_ood=("persona/jobb",)))


def test_a_group_over_two_kinds_has_one_split() -> None:
    shared = [
        SplitMember(label="persona-job-x", control="same", kind="persona", category="job"),
        SplitMember(label="goal-style-x", control="same", kind="goal", category="style"),
    ]
    for seed in range(20):
        (_, one), (_, other) = grouped_splits(shared + members(5), SplitConfig(seed=seed))[:2]
        assert one == other


@given(st.lists(st.integers(0, 4)), st.integers(1, 30))
def test_taking_evenly_takes_as_many_as_it_may(strata: list[int], limit: int) -> None:
    taken = take_evenly(strata, limit)
    assert taken == sorted(set(taken))
    assert len(taken) == min(limit, len(strata))


def test_strata_take_turns_two_rows_at_a_time() -> None:
    assert take_evenly(["a"] * 5 + ["b"] * 5 + ["c"], 7) == [0, 1, 2, 3, 5, 6, 10]


@pytest.mark.parametrize("in_order", [(), ("profile",)])
@pytest.mark.parametrize("count", [1, 2])
def test_a_kind_with_one_or_two_controls_still_trains(
    count: int, in_order: tuple[str, ...]
) -> None:
    members = [
        SplitMember(label=f"l{i}", control=f"c{i}", kind="profile", category="sea")
        for i in range(count)
    ]
    found = grouped_splits(members, SplitConfig(), in_order=in_order)
    assert {split for _, split in found} == {"train"}


def test_one_text_in_other_characters_is_of_one_group() -> None:
    composed, apart, curly = "Be a café’s cook.", "Be a cafe\u0301's cook.", "Be a café‘s cook."
    ids = group_ids([("a", composed), ("b", apart), ("c", curly), ("d", "Be a cafe's cook.")])
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]
