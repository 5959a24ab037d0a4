"""What is flagged as out of distribution, and how often what is in it is."""

from __future__ import annotations

import numpy as np
import pytest

from decoder.sources.training_distribution import FALSE_ALARM_RATE, ActivationOODDetector

D = 24
SCALES = np.linspace(3.0, 0.1, D)


def rows(count: int, seed: int, *, shift: float = 0.0) -> list[np.ndarray]:
    """Make readings of a few tokens, their first far out in every one as attention sinks are."""
    draw = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        own = draw.normal(size=(int(draw.integers(6, 20)), D)) * SCALES
        own += draw.normal(size=D) * SCALES / 2 + shift
        own[0, 0] += 500
        out.append(own.astype(np.float32))
    return out


def test_what_is_like_the_training_rows_is_rarely_flagged() -> None:
    flagged = []
    for seed in range(20):
        known = ActivationOODDetector(rows(60, seed))
        flagged += [bool(known.score(own).out_of_distribution) for own in rows(40, 1000 + seed)]
    assert np.mean(flagged) == pytest.approx(FALSE_ALARM_RATE, abs=0.03)


def test_what_is_elsewhere_is_flagged() -> None:
    known = ActivationOODDetector(rows(60, 0))
    assert all(known.score(own).out_of_distribution for own in rows(20, 1, shift=2.0))
    verdict = known.score(rows(1, 1, shift=2.0)[0])
    assert (verdict.share_nearer, verdict.rows) == (1.0, 60)
    assert verdict.distance > 1


def test_a_usual_distance_is_about_one() -> None:
    known = ActivationOODDetector(rows(60, 0))
    assert np.mean([known.score(own).distance for own in rows(20, 1)]) == pytest.approx(1, abs=0.4)


def test_few_rows_say_nothing() -> None:
    verdict = ActivationOODDetector(rows(18, 0)).score(rows(1, 1, shift=9.0)[0])
    assert verdict.out_of_distribution is None
    assert ActivationOODDetector(rows(19, 0)).score(rows(1, 1, shift=9.0)[0]).out_of_distribution
    assert ActivationOODDetector(rows(2, 0)).score(rows(1, 1)[0]).rows == 2


def test_a_layer_that_never_changes_still_has_a_distance() -> None:
    same = [np.ones((5, D), np.float32)] * 20
    assert ActivationOODDetector(same).score(same[0]).distance == 0
    assert np.isfinite(ActivationOODDetector(same).score(same[0] + 1).distance)
