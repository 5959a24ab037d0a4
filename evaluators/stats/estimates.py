"""Means, gains and differences over controls, with 95 % bootstrap intervals.

Controls are drawn with replacement, all that was measured on a control together, so that
differences are paired; evaluators/stats/intervals.py takes the interval from what was drawn.

Shapes: C controls, K columns (such as conditions), S bootstrap samples, R runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from evaluators.stats.intervals import (
    Part,
    least_interval,
    percentile_interval,
    pool_factor,
    pooled_p,
)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps column means [..., K] to [...]."""

# bootstrap samples drawn at once: bounds memory at 50 controls to a few MB
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Least:
    """The statistic that is the least of some columns' means, less that of another.

    The least is chosen anew wherever it is taken: of the controls at hand, and in each sample.

    Attributes:
        columns: those of which the least is taken.
        less: the column that is taken off; None for nothing.
    """

    columns: tuple[int, ...]
    less: int | None = None

    def __call__(self, means: np.ndarray) -> np.ndarray:
        """[..., K] to [...]."""
        found: np.ndarray = self.each(means).min(-1)
        return found

    def each(self, means: np.ndarray) -> np.ndarray:
        """[..., K] to [..., R]: what the least is taken of."""
        own = means[..., list(self.columns)]
        return own if self.less is None else own - means[..., [self.less]]


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
        low, high = _interval(statistic, self._mean_K, self._drawn_SK, self._n)
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
    another run on other controls. With one run it is that of `bootstrap`, and about that run alone;
    with a few it is stretched for how little they show of the spread between runs
    (evaluators/stats/intervals.py).

    Args:
        runs: R arrays [C, K] with the same controls in the same order.
        statistic: applied to the column means over runs and controls.
    """
    n = len(runs[0])
    if n < max(least, 2):
        return bootstrap(np.mean(runs, 0), statistic, samples=samples, seed=seed, least=least)
    mean_K = np.mean(runs, (0, 1))
    estimate = float(statistic(mean_K))
    drawn_SK = _draw([runs], samples, seed)[0]
    ends = _interval(statistic, mean_K, drawn_SK, n)
    factor = _factor([runs], statistic(drawn_SK), lambda a: statistic(a[0]), samples, seed)
    low, high = _stretched(estimate, ends, factor)
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

    def away(means: Sequence[np.ndarray]) -> np.ndarray:
        return statistic(means[1]) - statistic(means[0])

    sides = [first, second]
    drawn_S = away(_draw(sides, samples, seed))
    ends = percentile_interval(estimate, drawn_S, n)
    low, high = _stretched(estimate, ends, _factor(sides, drawn_S, away, samples, seed))
    return {"estimate": estimate, "low": low, "high": high, "n": n}


def pools_p(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    samples: int,
    seed: int,
) -> float | None:
    """Two-sided p of a difference between pools: could other runs of either have turned it?

    Args:
        first, second: as for `difference`.

    Returns:
        p by Student's t, which knows how few the runs are; None where neither side has several, or
        there are fewer than two controls.
    """
    sides = [first, second]
    if len(first[0]) < 2 or all(len(runs) == 1 for runs in sides):
        return None

    def away(means: Sequence[np.ndarray]) -> np.ndarray:
        return statistic(means[1]) - statistic(means[0])

    estimate = float(away([np.mean(side, (0, 1)) for side in sides]))
    return pooled_p(estimate, _parts(sides, away, samples, seed))


def _interval(
    statistic: Statistic, mean_K: np.ndarray, drawn_SK: np.ndarray, n: int
) -> tuple[float, float]:
    if isinstance(statistic, Least):
        return least_interval(statistic.each(mean_K), statistic.each(drawn_SK), n)
    return percentile_interval(float(statistic(mean_K)), statistic(drawn_SK), n)


def _stretched(estimate: float, ends: tuple[float, float], factor: float) -> tuple[float, float]:
    """An interval whose ends are moved away from the estimate; a factor of 1 leaves it alone."""
    if factor == 1:
        return ends
    low, high = (estimate + factor * (end - estimate) for end in ends)
    return low, high


def _factor(
    sides: Sequence[Sequence[np.ndarray]],
    drawn_S: np.ndarray,
    of: Callable[[Sequence[np.ndarray]], np.ndarray],
    samples: int,
    seed: int,
) -> float:
    """By how much the interval of several runs is stretched; 1 where each side has one.

    Args:
        drawn_S: the statistic of joint draws.
        of: the statistic, from the column means of each side.
    """
    if all(len(runs) == 1 for runs in sides):
        return 1.0
    return pool_factor(drawn_S, _parts(sides, of, samples, seed), len(sides[0][0]))


def _parts(
    sides: Sequence[Sequence[np.ndarray]],
    of: Callable[[Sequence[np.ndarray]], np.ndarray],
    samples: int,
    seed: int,
) -> list[Part]:
    """What the spread of a statistic is put together from: the controls, and the runs of each side
    that has several."""
    averaged = [[np.mean(runs, 0)] for runs in sides]
    parts = [(of(_draw(averaged, samples, seed)), len(sides[0][0]))]
    means = [own[0].mean(0) for own in averaged]
    for i, runs in enumerate(sides):
        if len(runs) > 1:
            # the runs take the place of controls: each is a row of column means
            drawn_SK = _draw([[np.mean(runs, 1)]], samples, seed + i + 1)[0]
            every = [np.broadcast_to(mean_K, drawn_SK.shape) for mean_K in means]
            every[i] = drawn_SK
            parts.append((of(every), len(runs)))
    return parts


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
