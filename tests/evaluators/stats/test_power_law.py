"""Power laws are found where they are, and their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.stats.power_law import fit_curve, fit_power_law

SIZES = np.array([10.0, 20.0, 40.0, 80.0, 160.0])


def test_a_law_with_a_limit_is_recovered() -> None:
    law = fit_power_law(SIZES, 1.2 + 3 * SIZES**-0.5, positive=True)
    assert (law.limit, law.scale, law.exponent) == pytest.approx((1.2, 3.0, -0.5), rel=1e-2)
    assert str(law).startswith("1.20 + ")


def test_three_sizes_are_fitted_without_a_limit() -> None:
    law = fit_power_law(SIZES[:3], 5 * SIZES[:3] ** 0.3, positive=False)
    assert (law.limit, law.scale, law.exponent) == pytest.approx((0.0, 5.0, 0.3), rel=1e-3)


def test_what_grows_towards_a_limit_has_a_negative_scale() -> None:
    law = fit_power_law(SIZES, 0.8 - 2 * SIZES**-0.7, positive=False)
    assert (law.limit, law.scale) == pytest.approx((0.8, -2.0), rel=2e-2)


def test_a_loss_has_no_limit_below_zero() -> None:
    falling = 5 - np.log(SIZES)
    assert fit_power_law(SIZES, falling, positive=False).limit < 0
    assert fit_power_law(SIZES, falling, positive=True).limit >= 0


def test_large_sizes_do_not_underflow() -> None:
    sizes = np.array([1e8, 5e8, 1e9, 7e9])
    law = fit_power_law(sizes, 1 + (sizes / 1e8) ** -2.5, positive=True)
    assert law(sizes) == pytest.approx(1 + (sizes / 1e8) ** -2.5, rel=1e-3)


def test_two_sizes_are_no_curve() -> None:
    with pytest.raises(ValueError, match="at least 3 sizes, got 2"):
        fit_power_law(SIZES[:2], SIZES[:2], positive=True)


def test_the_interval_of_a_prediction_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    controls, hit = 20, 0
    for _ in range(40):
        noise = generator.normal(0, 0.5, controls)[:, None] + generator.normal(
            0, 0.1, (controls, 4)
        )
        values_CN = 1 + 4 * SIZES[:4] ** -0.5 + noise
        drawn_SN = values_CN[generator.integers(0, controls, (100, controls))].mean(1)
        curve = fit_curve(SIZES[:4], values_CN.mean(0), drawn_SN, n=controls, positive=True)
        _, low, high = curve.predict(160)
        assert low is not None
        assert high is not None
        hit += low <= 1 + 4 * 160**-0.5 <= high
    assert hit >= 34
