"""Answer losses and gains of several evaluations, on the questions that all of them were asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.tables import SPLITS, VIEWS
from core.wording import sort_pairs
from evaluators.comparison.shared_questions import (
    Values,
    control_means,
    read_losses,
    shared_conditions,
    shared_keys,
)
from evaluators.comparison.values import ComparedView, Pool, compare_value
from evaluators.measure.panel import UNINFORMED, column_mean, find_lowest, lowest_minus
from evaluators.stats.estimates import Statistic

METRICS = ("right", "below_untrained", "grounded_gain", "information_gain")
"""What is compared, in nats per token; of `right` less is better, of the others more."""


def compare_losses(sides: Sequence[Sequence[Path]]) -> list[ComparedView]:
    """Compare answer losses and gains; p-values are not adjusted yet.

    Args:
        sides: for each run the folders of its pooled evaluations, the baseline first.

    Returns:
        Each split and view of which all evaluations have a question in common.
    """
    found = [[read_losses(folder) for folder in side] for side in sides]
    every = [one for side in found for one in side]
    views = [
        _compare_view(split, view, [[one[split, view] for one in side] for side in found])
        for split, view in sort_pairs(set(every[0]).intersection(*every[1:]), SPLITS, VIEWS)
    ]
    return [view for view in views if view.controls]


def _compare_view(split: str, view: str, sides: Sequence[Sequence[Values]]) -> ComparedView:
    every = [one for side in sides for one in side]
    keys = shared_keys(every)
    if not keys:
        return ComparedView(split, view, 0, 0, {})
    conditions = shared_conditions(every, keys)
    pools = [[control_means(one, keys, conditions) for one in side] for side in sides]
    return ComparedView(
        split,
        view,
        len(pools[0][0]),
        len(keys),
        {
            metric: tuple(
                compare_value(
                    pools[0], pool, statistic, _differences(pools[0], pool, metric, conditions)
                )
                for pool in pools
            )
            for metric, statistic in _statistics(conditions).items()
        },
    )


def _rivals(metric: str, conditions: Sequence[str]) -> list[str]:
    """Return the conditions whose least loss a gain is measured from."""
    return {
        "below_untrained": ["untrained_right"],
        "grounded_gain": ["other"],
        "information_gain": [name for name in UNINFORMED if name in conditions],
    }[metric]


def _statistics(conditions: Sequence[str]) -> dict[str, Statistic]:
    gains = {
        metric: lowest_minus(conditions, _rivals(metric, conditions), "right")
        for metric in METRICS[1:]
    }
    return {"right": column_mean(conditions, "right"), **gains}


def _differences(base: Pool, side: Pool, metric: str, conditions: Sequence[str]) -> np.ndarray:
    """Subtract the baseline's metric from a run's at each control [C], each with its best rival."""
    first, second = (_by_control(np.mean(pool, 0), metric, conditions) for pool in (base, side))
    away_C: np.ndarray = second - first
    return away_C


def _by_control(values_CK: np.ndarray, metric: str, conditions: Sequence[str]) -> np.ndarray:
    right_C: np.ndarray = values_CK[:, conditions.index("right")]
    if metric == "right":
        return right_C
    rival = find_lowest(values_CK, conditions, _rivals(metric, conditions))
    assert rival is not None, "there is a control"
    gain_C: np.ndarray = values_CK[:, conditions.index(rival)] - right_C
    return gain_C
