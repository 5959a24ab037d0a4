"""Means and 95 % bootstrap intervals over controls.

Shapes: C controls, K conditions, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np

# bootstrap samples drawn at once: bounds memory at 50 controls to a few MB
_CHUNK = 1000


class Estimate(TypedDict):
    """A mean over n controls; `low` and `high` are None where n is too small for an interval."""

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


def bootstrap(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    samples: int,
    seed: int,
    least: int,
) -> Estimate:
    """A statistic of condition means, with its percentile interval over controls.

    Controls are drawn with replacement, all conditions of a control together, so that differences
    are paired.

    Args:
        values: [C, K] answer losses, one row a control.
        statistic: maps condition means [..., K] to [...]; it is applied anew to each sample.
        samples: S.
        least: controls under which no interval is given.
    """
    n = len(values)
    if n == 0:
        return {"estimate": None, "low": None, "high": None, "n": 0}
    estimate = float(statistic(values.mean(0)))
    if n < least:
        return {"estimate": estimate, "low": None, "high": None, "n": n}
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        counts_SC = generator.multinomial(n, np.full(n, 1 / n), size=size)
        found.append(statistic(counts_SC @ values / n))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return {"estimate": estimate, "low": float(low), "high": float(high), "n": n}
