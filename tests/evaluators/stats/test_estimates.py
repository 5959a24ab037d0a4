"""Means over controls and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulated import SCENES, closed_coverage, coverage, hidden_coverage

from evaluators.stats.estimates import (
    Bootstrap,
    Resampling,
    average_by_control,
    pooled,
    pooled_p_value,
)
from evaluators.stats.estimates import difference as run_difference

Statistic = Callable[[np.ndarray], np.ndarray]


def first(means: np.ndarray) -> Any:
    return means[..., 0]


def difference(means: np.ndarray) -> Any:
    return means[..., 0] - means[..., 1]


def draw(**changes: int) -> Resampling:
    return replace(Resampling(samples=2000), **changes)


def measure(values: np.ndarray, statistic: Statistic = first, **changes: Any) -> dict[str, Any]:
    return Bootstrap(values, draw(**changes))(statistic).model_dump()


def test_a_control_counts_once_however_many_questions_it_has() -> None:
    names, means = average_by_control(np.array([1.0, 3.0, 10.0]), np.array(["b", "b", "a"]))
    assert names.tolist() == ["a", "b"]
    assert means.tolist() == [10.0, 2.0]


def test_no_values_are_no_controls() -> None:
    names, means = average_by_control(np.zeros(0), np.zeros(0))
    assert (len(names), means.shape) == (0, (0,))


def test_an_interval_is_a_function_of_values_and_seed() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1))
    assert measure(values) == measure(values)
    assert measure(values)["low"] != measure(values, seed=1)["low"]


def test_an_estimate_lies_within_its_interval() -> None:
    found = measure(np.random.default_rng(0).normal(5, 1, size=(20, 1)))
    assert found["low"] < found["estimate"] < found["high"]
    assert found["n"] == 20


def test_samples_in_pieces_are_all_counted() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1))
    few, many = measure(values, samples=100), measure(values, samples=2500)
    assert few["low"] != many["low"]


def test_differences_are_paired_within_a_control() -> None:
    random = np.random.default_rng(0)
    hardness = random.normal(0, 5, 30)
    values = np.stack([hardness + 1 + random.normal(0, 0.1, 30), hardness], 1)
    found = measure(values, difference)
    assert found["low"] > 0.9
    assert found["high"] < 1.1
    assert measure(values)["low"] < -1


def test_too_few_controls_get_no_interval() -> None:
    values = np.arange(7.0)[:, None]
    assert measure(values) == {"estimate": 3.0, "low": None, "high": None, "n": 7}
    assert measure(values, min_controls=7)["low"] is not None


def test_no_controls_get_no_estimate() -> None:
    nothing = {"estimate": None, "low": None, "high": None, "n": 0}
    assert measure(np.zeros((0, 1))) == nothing


@pytest.mark.parametrize("n", [12, 50])
def test_intervals_of_a_mean_hold_the_truth_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    held = 0
    for trial in range(400):
        values = 2 + random.normal(size=(n, 1))
        found = measure(values, samples=400, seed=trial)
        held += found["low"] <= 2 <= found["high"]
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("scene", [*SCENES][:3])
def test_intervals_of_gains_hold_the_truth_about_as_often_as_they_say(scene: str) -> None:
    found = coverage(scene, 12, datasets=300, samples=300, seed=1)
    # tests/proofs/test_panel_coverage.py has the full counts
    assert all(0.88 <= one.holds <= 0.985 for one in found.values()), found


def test_intervals_of_reading_hold_the_truth_about_as_often_as_they_say() -> None:
    lead = hidden_coverage("reads, rivals alike", 50, datasets=150, samples=300, seed=1)
    closed = closed_coverage("some found", 50, datasets=150, samples=300, seed=1)
    found = [*lead.items(), *closed.items()]
    assert all(0.89 <= one.holds <= 0.995 for _, one in found), found


def test_an_interval_is_about_as_wide_as_students() -> None:
    values = np.random.default_rng(0).normal(size=12)
    low, high = ends(measure(values[:, None], samples=20_000))
    half = stats.t.isf(0.025, 11) * values.std(ddof=1) / np.sqrt(12)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_all_controls_alike_have_an_interval_without_width() -> None:
    assert ends(measure(np.full((12, 1), 0.1))) == pytest.approx((0.1, 0.1))


def ends(found: dict[str, Any]) -> tuple[float, float]:
    return found["low"], found["high"]


def pool(runs: list[np.ndarray], **changes: Any) -> dict[str, Any]:
    return pooled(runs, first, draw(**changes)).model_dump()


def test_one_run_pooled_is_that_run() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    assert pool([values]) == measure(values)


def test_pooling_is_over_runs_and_controls() -> None:
    random = np.random.default_rng(0)
    hardness = random.normal(size=(20, 1))
    alike = [hardness + random.normal(0, 0.01, (20, 1)) for _ in range(3)]
    apart = [hardness + shift for shift in (-1.0, 0.0, 1.0)]
    one, same, spread = measure(hardness), pool(alike), pool(apart)
    assert same["estimate"] == pytest.approx(one["estimate"], abs=0.02)
    assert spread["estimate"] == pytest.approx(one["estimate"])
    assert same["n"] == spread["n"] == 20

    def width(found: dict[str, Any]) -> float:
        low, high = ends(found)
        return high - low

    # runs that agree are worth no more controls; runs that do not widen the interval
    assert width(same) == pytest.approx(width(one), rel=0.1)
    assert width(spread) > 1.3 * width(one)


def test_pooled_runs_of_few_controls_have_no_interval() -> None:
    assert pool([np.ones((3, 1)), np.zeros((3, 1))]) == {
        "estimate": 0.5,
        "low": None,
        "high": None,
        "n": 3,
    }


def compare_runs(
    first_: list[np.ndarray], second: list[np.ndarray], **changes: Any
) -> dict[str, Any]:
    return run_difference(first_, second, first, draw(**changes)).model_dump()


def test_a_run_does_not_differ_from_itself() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1))
    found = compare_runs([values], [values])
    assert found == {"estimate": 0.0, "low": 0.0, "high": 0.0, "n": 20}


def test_a_difference_of_two_runs_is_paired_by_control() -> None:
    random = np.random.default_rng(0)
    hardness = random.normal(0, 5, (20, 1))
    better = hardness - 0.5 + random.normal(0, 0.1, (20, 1))
    low, high = ends(compare_runs([hardness], [better]))
    assert -0.6 < low < high < -0.4


def test_a_difference_between_pools_is_as_unsure_as_their_runs_disagree() -> None:
    hardness = np.random.default_rng(0).normal(size=(20, 1))
    apart = [hardness + shift for shift in (-1.0, 0.0, 1.0)]
    low, high = ends(compare_runs([hardness, hardness], apart))
    assert low < -0.5 < 0.5 < high


@pytest.mark.parametrize("runs", [2, 3])
def test_differences_between_pools_hold_the_truth_where_runs_lie_far_apart(runs: int) -> None:
    random, held = np.random.default_rng(runs), 0
    for trial in range(200):
        hardness = random.normal(0, 0.3, (40, 1))
        sides = [
            [
                hardness + random.normal(0, 0.15) + random.normal(0, 0.1, (40, 1))
                for _ in range(runs)
            ]
            for _ in range(2)
        ]
        low, high = ends(compare_runs(*sides, samples=400, seed=trial))
        held += low <= 0 <= high
    # quantiles alone hold it in 70 and 87 of 100
    assert held / 200 >= 0.91


def pool_p(first_: list[np.ndarray], second: list[np.ndarray]) -> float | None:
    return pooled_p_value(first_, second, first, draw())


def test_a_p_of_pools_is_students() -> None:
    # nothing but runs differ: two a side, whose means are 1 apart with a variance of 1 / 2 + 1 / 2
    sides = [[np.full((9, 1), base + away) for away in (0.0, 2**0.5)] for base in (0.0, 3.0)]
    assert pool_p(*sides) == pytest.approx(0.0955, abs=0.01)  # t = 3 at 2 degrees


def test_runs_that_lie_apart_leave_nothing_of_what_all_controls_share() -> None:
    hardness = np.random.default_rng(0).normal(size=(30, 1))
    base = [hardness + 0.01, hardness - 0.01]
    apart = pool_p(base, [hardness + 0.2, hardness + 1.0])
    alike = pool_p(base, [hardness + 0.59, hardness + 0.61])
    assert apart is not None
    assert alike is not None
    assert apart > 0.2
    assert alike < 0.001


def test_without_a_pool_or_controls_there_is_no_p_of_pools() -> None:
    one = np.zeros((9, 1))
    assert pool_p([one], [one]) is None
    assert pool_p([one[:1]] * 2, [one[:1]]) is None


def test_pools_that_never_vary_differ_or_do_not() -> None:
    zero, one = [np.zeros((9, 1))] * 2, [np.ones((9, 1))] * 2
    assert (pool_p(zero, zero), pool_p(zero, one)) == (1.0, 0.0)


def test_a_difference_over_few_controls_has_no_interval() -> None:
    found = compare_runs([np.zeros((3, 1))], [np.ones((3, 1))])
    assert found == {"estimate": 1.0, "low": None, "high": None, "n": 3}
    nothing = compare_runs([np.zeros((0, 1))], [np.zeros((0, 1))])
    assert nothing == {"estimate": None, "low": None, "high": None, "n": 0}
