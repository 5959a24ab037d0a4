"""Whether two runs differ: p of a paired difference, and of many at once."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.stats.significance import adjust_holm, sign_flip_p_value


def p(differences: np.ndarray, seed: int = 0, samples: int = 2000) -> float:
    found = sign_flip_p_value(differences, samples=samples, seed=seed)
    assert found is not None
    return found


def test_a_difference_on_every_control_is_significant_and_none_at_all_is_not() -> None:
    assert p(np.full(12, 0.3)) < 0.01
    assert p(np.zeros(12)) == 1
    assert p(np.tile([0.3, -0.3], 6)) > 0.9


def test_a_difference_needs_controls() -> None:
    assert sign_flip_p_value(np.zeros(0), samples=100, seed=0) is None
    assert p(np.array([5.0])) == 1


def test_alike_runs_differ_as_often_as_the_level_says() -> None:
    random = np.random.default_rng(0)
    below = [p(random.standard_t(4, 12), seed=i, samples=400) < 0.05 for i in range(600)]
    assert 0.025 <= np.mean(below) <= 0.075


def test_many_questions_need_more_of_each() -> None:
    assert adjust_holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(x) if x else None for x in (0.03, None, 0.06, 0.06)
    ]
    assert adjust_holm([0.6, 0.7]) == [1.0, 1.0]
