"""Means and differences over controls, with 95 % bootstrap intervals.

Controls are resampled as clusters, with all that was measured on each, so that differences are
paired; evaluators/stats/intervals.py computes the interval from the resampled statistics.

Shapes: C controls, K columns (such as conditions), S bootstrap samples, R runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.records.estimate import Estimate
from evaluators.stats.intervals import (
    VariancePart,
    lowest_mean_interval,
    percentile_interval,
    t_test_p_value,
    widening_factor,
)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps column means [..., K] to [...]."""

# bootstrap samples drawn at once: bounds memory at 50 controls to a few MB
_CHUNK = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How bootstrap samples are drawn.

    Attributes:
        samples: number of bootstrap samples.
        seed: of the draw.
        min_controls: controls, prompts or pairs under which no interval is given.
    """

    samples: int = 10_000
    seed: int = 0
    min_controls: int = 8

    def is_enough(self, n: int) -> bool:
        """Tell whether `n` controls have an interval."""
        return n >= max(self.min_controls, 2)


@dataclass(frozen=True, slots=True)
class LowestMean:
    """The statistic that is the lowest mean of some columns, less the mean of another.

    The lowest is chosen anew in each bootstrap sample.

    Attributes:
        columns: those whose lowest mean is taken.
        minus: the column that is subtracted; None for nothing.
    """

    columns: tuple[int, ...]
    minus: int | None = None

    def __call__(self, means: np.ndarray) -> np.ndarray:
        """Map column means [..., K] to [...]."""
        found: np.ndarray = self.candidates(means).min(-1)
        return found

    def candidates(self, means: np.ndarray) -> np.ndarray:
        """Map column means [..., K] to the values [..., R] whose minimum is taken."""
        chosen: np.ndarray = means[..., list(self.columns)]
        return chosen if self.minus is None else chosen - means[..., [self.minus]]


def average_by_control(values: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average `values` [N] within each control of `controls` [N].

    Returns:
        The controls, sorted, and their means [C].
    """
    names, inverse = np.unique(controls, return_inverse=True)
    if not len(names):
        return names, np.zeros(0)
    totals = np.bincount(inverse, weights=values)
    return names, totals / np.bincount(inverse)


class Bootstrap:
    """Column means of controls and of bootstrap samples of them, for many statistics."""

    def __init__(self, values: np.ndarray, draw: Resampling) -> None:
        """Draw the bootstrap samples of the controls from `values` [C, K], a row per control."""
        self._n = len(values)
        self._mean_K = values.mean(0) if self._n else None
        self._drawn_SK = _resample([[values]], draw)[0] if draw.is_enough(self._n) else None

    def __call__(self, statistic: Statistic) -> Estimate:
        """Estimate a statistic with its interval."""
        if self._mean_K is None:
            return Estimate()
        estimate = float(statistic(self._mean_K))
        if self._drawn_SK is None:
            return Estimate(estimate=estimate, n=self._n)
        low, high = _interval(statistic, self._mean_K, self._drawn_SK, self._n)
        return Estimate(estimate=estimate, low=low, high=high, n=self._n)


def mean_estimate(values: Sequence[float] | np.ndarray, draw: Resampling) -> Estimate:
    """Estimate the mean of one value per control, prompt or pair; see `Bootstrap`."""
    return Bootstrap(np.asarray(values, float)[:, None], draw)(lambda means: means[..., 0])


def pooled(runs: Sequence[np.ndarray], statistic: Statistic, draw: Resampling) -> Estimate:
    """Estimate a statistic of several runs that differ by their seeds, on the same controls.

    Controls and runs are both resampled (Owen 2007, the pigeonhole bootstrap): the interval is
    about another run on other controls. With one run it is that of `Bootstrap`, and about that run
    alone; with a few it is widened for how little they show of the spread between runs
    (evaluators/stats/intervals.py).

    Args:
        runs: R arrays [C, K] with the same controls in the same order.
        statistic: applied to the column means over runs and controls.
        draw: of controls and runs.
    """
    n = len(runs[0])
    if not draw.is_enough(n):
        return Bootstrap(np.mean(runs, 0), draw)(statistic)
    mean_K = np.mean(runs, (0, 1))
    estimate = float(statistic(mean_K))
    drawn_SK = _resample([runs], draw)[0]
    ends = _interval(statistic, mean_K, drawn_SK, n)
    factor = _widening([runs], statistic(drawn_SK), lambda a: statistic(a[0]), draw)
    low, high = _widened(estimate, ends, factor)
    return Estimate(estimate=estimate, low=low, high=high, n=n)


def difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    statistic: Statistic,
    draw: Resampling,
) -> Estimate:
    """Estimate a statistic of `second` less that of `first`, on the same controls.

    Controls are resampled once for both, so that the difference is paired; the runs of each side,
    where it has several, are resampled independently (see `pooled`).

    Args:
        first: runs [C, K].
        second: runs with the same controls in the same order.
        statistic: applied to the column means over runs and controls.
        draw: of controls and runs.
    """
    n = len(first[0])
    if not n:
        return Estimate()
    a, b = (statistic(np.mean(side, (0, 1))) for side in (first, second))
    estimate = float(b - a)
    if not draw.is_enough(n):
        return Estimate(estimate=estimate, n=n)
    sides, contrast = [first, second], _contrast_of(statistic)
    drawn_S = contrast(_resample(sides, draw))
    ends = percentile_interval(estimate, drawn_S, n)
    low, high = _widened(estimate, ends, _widening(sides, drawn_S, contrast, draw))
    return Estimate(estimate=estimate, low=low, high=high, n=n)


def unpaired_difference(first_C: np.ndarray, second_C: np.ndarray, draw: Resampling) -> Estimate:
    """Estimate the mean of `second_C` less that of `first_C`, which are different controls.

    Args:
        first_C: one value per control.
        second_C: likewise; the controls are others, and each side is resampled independently.
        draw: of the controls; either side needs enough for an interval.

    Returns:
        The estimate; n is that of the smaller side.
    """
    n = min(len(first_C), len(second_C))
    estimate = float(second_C.mean() - first_C.mean())
    if not draw.is_enough(n):
        return Estimate(estimate=estimate, n=n)
    generator = np.random.default_rng(draw.seed)
    first_S, second_S = (
        values_C[generator.integers(0, len(values_C), (draw.samples, len(values_C)))].mean(1)
        for values_C in (first_C, second_C)
    )
    low, high = percentile_interval(estimate, second_S - first_S, n)
    return Estimate(estimate=estimate, low=low, high=high, n=n)


def pooled_p_value(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    statistic: Statistic,
    draw: Resampling,
) -> float | None:
    """Compute the two-sided p of a difference between pools of runs (see `difference`).

    It answers whether other runs of either side could have reversed the difference.

    Args:
        first: runs [C, K].
        second: runs with the same controls in the same order.
        statistic: applied to the column means over runs and controls.
        draw: of controls and runs.

    Returns:
        p by Student's t, which accounts for how few the runs are; None where neither side has
        several, or there are fewer than two controls.
    """
    sides = [first, second]
    if len(first[0]) < 2 or all(len(runs) == 1 for runs in sides):
        return None
    contrast = _contrast_of(statistic)
    estimate = float(contrast([np.mean(side, (0, 1)) for side in sides]))
    return t_test_p_value(estimate, _variance_parts(sides, contrast, draw))


def _contrast_of(statistic: Statistic) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Return the statistic of the second side less that of the first, from their column means."""
    return lambda means: statistic(means[1]) - statistic(means[0])


def _interval(
    statistic: Statistic, mean_K: np.ndarray, drawn_SK: np.ndarray, n: int
) -> tuple[float, float]:
    if isinstance(statistic, LowestMean):
        return lowest_mean_interval(statistic.candidates(mean_K), statistic.candidates(drawn_SK), n)
    return percentile_interval(float(statistic(mean_K)), statistic(drawn_SK), n)


def _widened(estimate: float, ends: tuple[float, float], factor: float) -> tuple[float, float]:
    """Move the ends of an interval away from the estimate; a factor of 1 changes nothing."""
    if factor == 1:
        return ends
    low, high = (estimate + factor * (end - estimate) for end in ends)
    return low, high


def _widening(
    sides: Sequence[Sequence[np.ndarray]],
    drawn_S: np.ndarray,
    of: Callable[[Sequence[np.ndarray]], np.ndarray],
    draw: Resampling,
) -> float:
    """Compute the factor by which the interval of several runs is widened.

    Args:
        sides: the runs of each side.
        drawn_S: the statistic where controls and runs are resampled together.
        of: the statistic, from the column means of each side.
        draw: of controls and runs.

    Returns:
        1 where each side has one run.
    """
    if all(len(runs) == 1 for runs in sides):
        return 1.0
    return widening_factor(drawn_S, _variance_parts(sides, of, draw), len(sides[0][0]))


def _variance_parts(
    sides: Sequence[Sequence[np.ndarray]],
    of: Callable[[Sequence[np.ndarray]], np.ndarray],
    draw: Resampling,
) -> list[VariancePart]:
    """Resample the controls alone, and alone the runs of each side that has several."""
    averaged = [[np.mean(runs, 0)] for runs in sides]
    parts = [VariancePart(of(_resample(averaged, draw)), len(sides[0][0]))]
    means = [side[0].mean(0) for side in averaged]
    for i, runs in enumerate(sides):
        if len(runs) > 1:
            # the runs take the place of controls: each is a row of column means
            drawn_SK = _resample([[np.mean(runs, 1)]], replace(draw, seed=draw.seed + i + 1))[0]
            sides_SK = [np.broadcast_to(mean_K, drawn_SK.shape) for mean_K in means]
            sides_SK[i] = drawn_SK
            parts.append(VariancePart(of(sides_SK), len(runs)))
    return parts


def _resample(sides: Sequence[Sequence[np.ndarray]], draw: Resampling) -> list[np.ndarray]:
    """Resample column means [S, K] of each side: the same controls on all, several runs of each."""
    n = len(sides[0][0])
    generator = np.random.default_rng(draw.seed)
    found: list[list[np.ndarray]] = [[] for _ in sides]
    for start in range(0, draw.samples, _CHUNK):
        size = min(_CHUNK, draw.samples - start)
        counts_SC = generator.multinomial(n, np.full(n, 1 / n), size=size)
        for runs, means in zip(sides, found, strict=True):
            several = len(runs)
            weights = counts_SC  # whole numbers: equal samples have equal means, to the bit
            if several > 1:
                counts_SR = generator.multinomial(several, np.full(several, 1 / several), size)
                weights = (counts_SR[:, :, None] * counts_SC[:, None, :]).reshape(size, -1)
            means.append(weights @ np.concatenate(runs) / (n * several))
    return [np.concatenate(means) for means in found]
