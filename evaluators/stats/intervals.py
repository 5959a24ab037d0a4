"""The ends of a 95 % interval, from the bootstrap samples of a statistic.

Quantiles of the samples, mended twice:

* *Expanded* (Hesterberg 2015, "What Teachers Should Know about the Bootstrap", section 5): plain
  percentiles of a mean over n controls are too narrow by sqrt((n - 1) / n) and know nothing of
  Student's t; at 12 controls they hold the truth in 92 of 100 cases at best. The quantiles are
  moved outwards until they agree with the t interval where the drawn means are normal.
* *Bias-corrected* (Efron 1987, BCa without acceleration): they are moved by the share of samples
  below the estimate.

The least of several means needs more. Where the means are close, it is biased low, the least of a
sample's means is biased low once more, and no shift of quantiles mends both: the bootstrap of a
minimum is not consistent at a tie. So its ends are taken from the intervals of the single means
(after Chernozhukov, Lee & Rosen 2013, "Intersection Bounds"):

* *Below*: the least of the single means' ends. It lies above the truth only if the end of the true
  least does, so it is safe whatever ties there are.
* *Above*: the least of the single means' ends again, each taken at the level at which all those
  that may be the least hold together in the samples (levels, not widths, so that skewed means are
  served alike: Beran 1988, "Balanced Simultaneous Confidence Sets"). A mean may be the least where
  it is not above the least one by sqrt(log n) standard errors of their difference.

With one mean, or one that is clearly the least, this is that mean's own interval. At a tie its end
below misses the truth less often than in 2.5 of 100 cases: the error is on the side of no claim.

A studentised interval does as well on means, and fails on rates: a sample in which all controls
agree has no spread to divide by. tests/proofs/test_panel_coverage.py measures the coverage.

Shapes: S bootstrap samples, R means.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_OUTSIDE = 0.025
_SMALL_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365)
"""The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom."""


def percentile_interval(estimate: float, drawn_S: np.ndarray, n: int) -> tuple[float, float]:
    """Ends of the interval of a statistic, from its value in each sample.

    Args:
        n: controls that were drawn from.
    """
    bias, reach = _bias(estimate, drawn_S), _reach(n)
    low, high = (_quantile(drawn_S, 2 * bias + side * reach) for side in (-1, 1))
    return low, high


def least_interval(estimates_R: np.ndarray, drawn_SR: np.ndarray, n: int) -> tuple[float, float]:
    """Ends of the interval of the least of several means, from the means in each sample.

    Args:
        n: controls that were drawn from.
    """
    reach = _reach(n)
    bias_R = [
        _bias(float(own), drawn_S) for own, drawn_S in zip(estimates_R, drawn_SR.T, strict=True)
    ]
    low = min(_quantile(drawn_SR[:, k], 2 * bias - reach) for k, bias in enumerate(bias_R))
    near = np.flatnonzero(_may_be_least(estimates_R, drawn_SR, n))
    if len(near) > 1:
        reach = _joint_reach(drawn_SR[:, near], reach)
    return low, min(_quantile(drawn_SR[:, k], 2 * bias_R[k] + reach) for k in near)


Part = tuple[np.ndarray, int]
"""Of one thing that is drawn (the controls; the runs of a side that has several): a statistic in
samples where it alone is drawn, and how many of it there are."""


def pooled_spread(parts: Sequence[Part]) -> tuple[float, float]:
    """Variance of a statistic of pooled runs, and the degrees of freedom behind it.

    Quantiles of joint draws know neither that two or three runs show little of how far runs lie
    apart, nor what share of the spread is theirs. So the variance is put together from its parts,
    each drawn by itself, with as many degrees of freedom as they are worth together (Satterthwaite
    1946).

    Returns:
        Both 0 where nothing varies.
    """
    spreads = [(own_S.var() * m / (m - 1), m - 1) for own_S, m in parts]
    total = float(sum(spread for spread, _ in spreads))
    if total <= 1e-20:  # a trace of rounding
        return 0.0, 0.0
    return total, float(total**2 / sum(spread**2 / free for spread, free in spreads))


def pool_factor(drawn_S: np.ndarray, parts: Sequence[Part], n: int) -> float:
    """By how much an interval from pooled runs has to be stretched about its estimate; at least 1.

    Args:
        drawn_S: the statistic in joint draws, from which the interval was taken.
        n: controls.
    """
    variance, degrees = pooled_spread(parts)
    given = _reach(n) * drawn_S.std()
    if not variance or given <= 0:
        return 1.0
    return max(1.0, float(students_t(degrees) * variance**0.5 / given))


def pooled_p(estimate: float, parts: Sequence[Part]) -> float:
    """Two-sided p of a statistic of pooled runs, by Student's t (see `pooled_spread`)."""
    variance, degrees = pooled_spread(parts)
    if not variance:
        return 1.0 if estimate == 0 else 0.0
    # the tail of t, as an area under a power of the cosine
    angle = np.arctan(abs(estimate) / (variance * degrees) ** 0.5)
    grid = np.linspace(0.0, np.pi / 2, 20_001)[:-1]
    density = np.cos(grid) ** (degrees - 1)
    return float(density[grid >= angle].sum() / density.sum())


def students_t(degrees: float) -> float:
    """The 97.5 % quantile of Student's t.

    From 7 degrees of freedom on by its expansion about the normal one, right to three digits
    (Abramowitz & Stegun 26.7.5); below between the whole ones in 1/degrees, which errs upwards.
    """
    if degrees < len(_SMALL_T):
        whole = [1 / k for k in range(len(_SMALL_T), 0, -1)]
        return float(np.interp(1 / degrees, whole, _SMALL_T[::-1]))
    z = _NORMAL.inv_cdf(1 - _OUTSIDE)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def _reach(n: int) -> float:
    """Standard scores from the middle to an end, expanded."""
    return students_t(n - 1) * (n / (n - 1)) ** 0.5


def _quantile(drawn_S: np.ndarray, score: float) -> float:
    """The samples' quantile at a standard score."""
    return float(np.quantile(drawn_S, _NORMAL.cdf(score)))


def _bias(estimate: float, drawn_S: np.ndarray) -> float:
    """Standard score of the share of samples below the estimate."""
    tiny = 1e-12 * max(1.0, abs(estimate))  # rounding must not tell equal values apart
    below = np.mean(drawn_S < estimate - tiny) + np.mean(np.abs(drawn_S - estimate) <= tiny) / 2
    one = 1 / len(drawn_S)
    return _NORMAL.inv_cdf(float(np.clip(below, one, 1 - one)))


def _may_be_least(estimates_R: np.ndarray, drawn_SR: np.ndarray, n: int) -> np.ndarray:
    """[R] whether a mean is not clearly above the least one."""
    least = int(estimates_R.argmin())
    errors_R = (drawn_SR - drawn_SR[:, [least]]).std(0) * (n / (n - 1)) ** 0.5
    return estimates_R - estimates_R[least] <= np.log(n) ** 0.5 * errors_R + 1e-12


def _joint_reach(drawn_SR: np.ndarray, reach: float) -> float:
    """The reach of each single end above at which the ends of all means hold together."""
    greatest_S = np.stack([_ranks(drawn_S) for drawn_S in drawn_SR.T]).max(0)
    half = 1 / (2 * len(drawn_SR))
    level = np.quantile(greatest_S, _NORMAL.cdf(reach))
    return _NORMAL.inv_cdf(float(np.clip(level, half, 1 - half)))


def _ranks(drawn_S: np.ndarray) -> np.ndarray:
    """Share of samples below each sample, equal ones counted half."""
    ordered = np.sort(drawn_S)
    below, upto = (np.searchsorted(ordered, drawn_S, side) for side in ("left", "right"))
    return (below + upto) / (2 * len(drawn_S))
