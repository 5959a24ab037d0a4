"""Means, gains and differences over controls, with 95 % bootstrap intervals.

Controls are drawn with replacement, all that was measured on a control together, so that
differences are paired. From the drawn statistics an interval is taken by quantiles, mended twice:

* *Expanded* (Hesterberg 2015, "What Teachers Should Know about the Bootstrap", section 5): plain
  percentiles of a mean over n controls are too narrow by sqrt((n - 1) / n) and know nothing of
  Student's t; at 12 controls they hold the truth in 92 of 100 cases at best. The quantiles are
  moved outwards until they agree with the t interval where the drawn means are normal.
* *Bias-corrected* (Efron 1987, BCa without acceleration): the information gain is taken over the
  best of several rivals, a minimum, which is biased low and in each sample lower still. The
  quantiles are moved by the share of samples below the estimate.

A studentised interval does as well on means, and fails on rates: a sample in which all controls
agree has no spread to divide by. tests/proofs/test_panel_coverage.py measures the coverage.

Shapes: C controls, K columns (such as conditions), S bootstrap samples, R runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TypedDict

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps column means [..., K] to [...]."""

# bootstrap samples drawn at once: bounds memory at 50 controls to a few MB
_CHUNK = 1000
_NORMAL = NormalDist()
_OUTSIDE = 0.025


class Estimate(TypedDict):
    """A value over n controls; `low` and `high` are None where n is too small for an interval."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int


def over_controls(values: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of `values` [N] within each control of `controls` [N].

    Returns:
        The controls, sorted, and their means [C].
    """
    names, inverse = np.unique(controls, return_inverse=True)
    if not len(names):
        return names, np.zeros(0)
    totals = np.bincount(inverse, weights=values)
    return names, totals / np.bincount(inverse)


class Bootstrap:
    """Column means of the controls at hand and of S samples of them, for many statistics.

    Args:
        values: [C, K], one row a control.
        samples: S.
        least: controls under which no interval is given.
    """

    def __init__(self, values: np.ndarray, *, samples: int, seed: int, least: int) -> None:
        self._n = len(values)
        self._mean_K = values.mean(0) if self._n else None
        self._drawn_SK = _draw([[values]], samples, seed)[0] if self._n >= max(least, 2) else None

    def __call__(self, statistic: Statistic) -> Estimate:
        """The statistic with its interval."""
        if self._mean_K is None:
            return {"estimate": None, "low": None, "high": None, "n": 0}
        estimate = float(statistic(self._mean_K))
        if self._drawn_SK is None:
            return {"estimate": estimate, "low": None, "high": None, "n": self._n}
        low, high = interval(estimate, statistic(self._drawn_SK), self._n)
        return {"estimate": estimate, "low": low, "high": high, "n": self._n}


def bootstrap(
    values: np.ndarray, statistic: Statistic, *, samples: int, seed: int, least: int
) -> Estimate:
    """One statistic of `values` [C, K]; see `Bootstrap`."""
    return Bootstrap(values, samples=samples, seed=seed, least=least)(statistic)


def pooled(
    runs: Sequence[np.ndarray], statistic: Statistic, *, samples: int, seed: int, least: int
) -> Estimate:
    """A statistic of several runs that differ by their seeds, on the same controls.

    Controls and runs are both drawn (Owen 2007, the pigeonhole bootstrap): the interval is about
    another run on other controls. With one run it is that of `bootstrap`; with two or three the
    spread between runs is itself known badly, and the interval rather too narrow than too wide.

    Args:
        runs: R arrays [C, K] with the same controls in the same order.
        statistic: applied to the column means over runs and controls.
    """
    n = len(runs[0])
    if n < max(least, 2):
        return bootstrap(np.mean(runs, 0), statistic, samples=samples, seed=seed, least=least)
    estimate = float(statistic(np.mean(runs, (0, 1))))
    low, high = interval(estimate, statistic(_draw([runs], samples, seed)[0]), n)
    return {"estimate": estimate, "low": low, "high": high, "n": n}


def difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    samples: int,
    seed: int,
    least: int,
) -> Estimate:
    """A statistic of `second` less that of `first`, on the same controls.

    Controls are drawn once for both, so that the difference is paired; the runs of each side, where
    it has several, are drawn by themselves (see `pooled`).

    Args:
        first, second: runs [C, K], the same controls in the same order on both sides.
    """
    n = len(first[0])
    if not n:
        return {"estimate": None, "low": None, "high": None, "n": 0}
    a, b = (statistic(np.mean(side, (0, 1))) for side in (first, second))
    estimate = float(b - a)
    if n < max(least, 2):
        return {"estimate": estimate, "low": None, "high": None, "n": n}
    drawn_a, drawn_b = _draw([first, second], samples, seed)
    low, high = interval(estimate, statistic(drawn_b) - statistic(drawn_a), n)
    return {"estimate": estimate, "low": low, "high": high, "n": n}


def interval(estimate: float, drawn_S: np.ndarray, n: int) -> tuple[float, float]:
    """Ends of the 95 % interval, from the statistic of each sample.

    Args:
        n: controls that were drawn from.
    """
    tiny = 1e-12 * max(1.0, abs(estimate))  # rounding must not tell equal values apart
    below = np.mean(drawn_S < estimate - tiny) + np.mean(np.abs(drawn_S - estimate) <= tiny) / 2
    one = 1 / len(drawn_S)
    bias = _NORMAL.inv_cdf(float(np.clip(below, one, 1 - one)))
    reach = students_t(n - 1) * (n / (n - 1)) ** 0.5
    low, high = (_NORMAL.cdf(2 * bias + side * reach) for side in (-1, 1))
    found = np.quantile(drawn_S, [low, high])
    return float(found[0]), float(found[1])


def students_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by its expansion about the normal one.

    Right to three digits from 7 degrees of freedom on (Abramowitz & Stegun 26.7.5).
    """
    z = _NORMAL.inv_cdf(1 - _OUTSIDE)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def _draw(sides: Sequence[Sequence[np.ndarray]], samples: int, seed: int) -> list[np.ndarray]:
    """Column means [S, K] of each side: the same drawn controls, and of several runs drawn ones."""
    n = len(sides[0][0])
    generator = np.random.default_rng(seed)
    found: list[list[np.ndarray]] = [[] for _ in sides]
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        counts_SC = generator.multinomial(n, np.full(n, 1 / n), size=size)
        for runs, means in zip(sides, found, strict=True):
            several = len(runs)
            weights = counts_SC  # whole numbers: equal samples have equal means, to the bit
            if several > 1:
                counts_SR = generator.multinomial(several, np.full(several, 1 / several), size)
                weights = (counts_SR[:, :, None] * counts_SC[:, None, :]).reshape(size, -1)
            means.append(weights @ np.concatenate(runs) / (n * several))
    return [np.concatenate(means) for means in found]
