"""Means over controls and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluators.statistics import Estimate, bootstrap, over_controls

Statistic = Callable[[np.ndarray], np.ndarray]


def first(means: np.ndarray) -> Any:
    return means[..., 0]


def difference(means: np.ndarray) -> Any:
    return means[..., 0] - means[..., 1]


def measure(values: np.ndarray, statistic: Statistic = first, **changes: Any) -> Estimate:
    settings = {"samples": 2000, "seed": 0, "least": 8, **changes}
    return bootstrap(values, statistic, **settings)


def test_a_control_counts_once_however_many_questions_it_has() -> None:
    names, means = over_controls(np.array([1.0, 3.0, 10.0]), np.array(["b", "b", "a"]))
    assert names.tolist() == ["a", "b"]
    assert means.tolist() == [10.0, 2.0]


def test_no_values_are_no_controls() -> None:
    names, means = over_controls(np.zeros(0), np.zeros(0))
    assert (len(names), means.shape) == (0, (0,))


def test_an_interval_is_a_function_of_values_and_seed() -> None:
    values = np.random.default_rng(0).normal(size=(20, 1))
    assert measure(values) == measure(values)
    assert measure(values)["low"] != measure(values, seed=1)["low"]


def test_an_estimate_lies_within_its_interval() -> None:
    found = measure(np.random.default_rng(0).normal(5, 1, size=(20, 1)))
    assert found["low"] is not None
    assert found["high"] is not None
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
    assert found["low"] is not None
    assert found["high"] is not None
    assert found["low"] > 0.9
    assert found["high"] < 1.1
    assert measure(values)["low"] < -1


def test_too_few_controls_get_no_interval() -> None:
    values = np.arange(7.0)[:, None]
    assert measure(values) == {"estimate": 3.0, "low": None, "high": None, "n": 7}
    assert measure(values, least=7)["low"] is not None


def test_no_controls_get_no_estimate() -> None:
    nothing = {"estimate": None, "low": None, "high": None, "n": 0}
    assert measure(np.zeros((0, 1))) == nothing


@pytest.mark.parametrize("n", [12, 40])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    held = 0
    for trial in range(400):
        values = 2 + random.normal(size=(n, 1))
        found = measure(values, samples=400, seed=trial)
        assert found["low"] is not None
        assert found["high"] is not None
        held += found["low"] <= 2 <= found["high"]
    # percentile intervals over 12 controls are a little narrow: 92 %
    assert 0.89 <= held / 400 <= 0.98
