"""Values of a metric over several runs, their differences to a baseline, and which stand out.

A difference stands out where its 95 % interval excludes zero *and* its p is below 0.05, adjusted
for all the differences asked about (Holm): the p of a sign-flip test over controls, and of pooled
runs the larger of that and of a t test that knows how few the runs are.

Shapes: the values of an evaluation are [C, K], a row for each control and a column for each
condition or metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.records.estimate import Estimate
from evaluators.comparison.shared_questions import (
    Values,
    control_means,
    shared_conditions,
    shared_keys,
)
from evaluators.stats.estimates import Resampling, Statistic, difference, pooled, pooled_p_value
from evaluators.stats.significance import adjust_holm, sign_flip_p_value

LEVEL = 0.05
BOOTSTRAP = Resampling()
"""Bootstrap of a comparison."""

Pool = Sequence[np.ndarray]
"""Values [C, K] of each pooled evaluation of a run, over the same controls in the same order."""


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """A metric of one run; `difference`, `p` and `differs` are about the baseline."""

    estimate: Estimate
    difference: Estimate | None = None
    p: float | None = None
    differs: bool = False


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """How a metric follows from the means under each condition.

    Attributes:
        statistic: of the means over controls.
        by_control: the metric of each control [C], from its means [C, K].
    """

    statistic: Statistic
    by_control: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class ComparedView:
    """One split and view: how much all runs share of it, and a value for each run by metric."""

    split: str
    view: str
    controls: int
    questions: int
    metrics: dict[str, tuple[ComparedValue, ...]]


def compare_shared(
    split: str,
    view: str,
    sides: Sequence[Sequence[Values]],
    metrics: Callable[[Sequence[str]], Mapping[str, ComparedMetric]],
) -> ComparedView | None:
    """Compare metrics on the questions that every evaluation has; None where there are none.

    Args:
        split: of the questions.
        view: of the questions.
        sides: for each run the numbers of its pooled evaluations, the baseline first.
        metrics: makes the metrics from the names of the conditions that all have.
    """
    every = [one for side in sides for one in side]
    keys = shared_keys(every)
    if not keys:
        return None
    conditions = shared_conditions(every, keys)
    pools = [[control_means(one, keys, conditions) for one in side] for side in sides]
    means_RCK = [np.mean(pool, 0) for pool in pools]
    found = {
        name: tuple(
            compare_value(
                pools[0],
                pool,
                metric.statistic,
                metric.by_control(means_CK) - metric.by_control(means_RCK[0]),
            )
            for pool, means_CK in zip(pools, means_RCK, strict=True)
        )
        for name, metric in metrics(conditions).items()
    }
    return ComparedView(split, view, len(pools[0][0]), len(keys), found)


def compare_value(
    base: Pool, side: Pool, statistic: Statistic, differences_C: np.ndarray
) -> ComparedValue:
    """Estimate a statistic of one run, and its difference to the baseline; p is not adjusted yet.

    Args:
        base: the baseline.
        side: the run, which may be the baseline itself: it then has no difference.
        statistic: what is estimated.
        differences_C: the difference at each control, pooled evaluations averaged, for the
            sign-flip test.
    """
    estimate = pooled(side, statistic, BOOTSTRAP)
    if side is base:
        return ComparedValue(estimate)
    away = difference(base, side, statistic, BOOTSTRAP)
    over_controls = sign_flip_p_value(differences_C, samples=BOOTSTRAP.samples, seed=BOOTSTRAP.seed)
    over_runs = pooled_p_value(base, side, statistic, BOOTSTRAP)
    found = [p for p in (over_controls, over_runs) if p is not None]
    p = None if over_controls is None else max(found)
    return ComparedValue(estimate, away, p)


def adjust_p_values(views: Sequence[ComparedView]) -> tuple[ComparedView, ...]:
    """Adjust each p for all differences of `views` (Holm), and mark those that stand out."""
    asked = [
        (i, metric, k)
        for i, view in enumerate(views)
        for metric, values in view.metrics.items()
        for k in range(1, len(values))
    ]
    adjusted = adjust_holm([views[i].metrics[metric][k].p for i, metric, k in asked])
    found = dict(zip(asked, adjusted, strict=True))

    def mark(place: tuple[int, str, int], value: ComparedValue) -> ComparedValue:
        if place not in found:
            return value
        p, away = found[place], value.difference
        stands_out = away is not None and away.excludes_zero and p is not None and p < LEVEL
        return replace(value, p=p, differs=stands_out)

    return tuple(
        replace(
            view,
            metrics={
                metric: tuple(mark((i, metric, k), value) for k, value in enumerate(values))
                for metric, values in view.metrics.items()
            },
        )
        for i, view in enumerate(views)
    )
