"""Choices among four: a method that ignores a row is right about exactly one."""

from __future__ import annotations

from collections import Counter

from evaluators.tasks.quartets import make_quartets, score_choice


def test_each_group_has_four_answers_and_a_row_is_in_one_group() -> None:
    answers = list("aaaabbbccddd")
    groups = make_quartets(answers, ["q"] * len(answers), seed=0)
    assert [sorted(answers[i] for i in group) for group in groups] == [list("abcd")] * 2
    used = [i for group in groups for i in group]
    assert len(used) == len(set(used))


def test_as_many_groups_as_can_be_had() -> None:
    answers = ["a"] * 6 + ["b"] * 3 + ["c"] * 3 + ["d"] * 3 + ["e"] * 3
    groups = make_quartets(answers, ["q"] * len(answers), seed=0)
    assert len(groups) == 4  # 18 rows, six of one answer
    counts = Counter(answers[i] for group in groups for i in group)
    assert counts["a"] == 4


def test_rows_of_different_questions_share_no_group() -> None:
    groups = make_quartets(list("abcd"), ["q", "q", "r", "r"], seed=0)
    assert groups == []


def test_a_name_within_another_is_no_option_beside_it() -> None:
    answers = ["Football", "American football", "soccer", "golf"]
    assert make_quartets(answers, ["q"] * 4, seed=0) == []
    assert len(make_quartets([*answers, "tennis"], ["q"] * 5, seed=0)) == 1


def test_equal_scores_share_the_point() -> None:
    assert score_choice([1.0, 1.0, 0.0, 0.0], gold=1) == 0.5
    assert score_choice([1.0, 2.0, 0.0, 0.0], gold=0) == 0.0
    assert score_choice([3.0, 2.0, 0.0, 0.0], gold=0) == 1.0
