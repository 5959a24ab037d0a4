"""Means, gains and differences over controls, with 95 % bootstrap intervals.

Controls are drawn with replacement, all that was measured on a control together, so that
differences are paired; evaluators/intervals.py takes the interval from what was drawn.

Shapes: C controls, K columns (such as conditions), S bootstrap samples, R runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from evaluators.intervals import least_interval, percentile_interval

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
    another run on other controls. With one run it is that of `bootstrap`; with two or three the
    spread between runs is itself known badly, and the interval rather too narrow than too wide.

    Args:
        runs: R arrays [C, K] with the same controls in the same order.
        statistic: applied to the column means over runs and controls.
    """
    n = len(runs[0])
    if n < max(least, 2):
        return bootstrap(np.mean(runs, 0), statistic, samples=samples, seed=seed, least=least)
    mean_K = np.mean(runs, (0, 1))
    low, high = _interval(statistic, mean_K, _draw([runs], samples, seed)[0], n)
    return {"estimate": float(statistic(mean_K)), "low": low, "high": high, "n": n}


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
    low, high = percentile_interval(estimate, statistic(drawn_b) - statistic(drawn_a), n)
    return {"estimate": estimate, "low": low, "high": high, "n": n}


def _interval(
    statistic: Statistic, mean_K: np.ndarray, drawn_SK: np.ndarray, n: int
) -> tuple[float, float]:
    if isinstance(statistic, Least):
        return least_interval(statistic.each(mean_K), statistic.each(drawn_SK), n)
    return percentile_interval(float(statistic(mean_K)), statistic(drawn_SK), n)


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
