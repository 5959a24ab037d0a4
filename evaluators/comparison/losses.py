"""Answer losses and gains of several evaluations, on the questions that all of them were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.tables import SPLITS, VIEWS
from core.wording import sort_known
from evaluators.comparison.values import ComparedView, Pool, compare_value
from evaluators.measure.panel import UNINFORMED, column_mean, find_lowest, lowest_minus
from evaluators.measure.result_files import LOSSES_FILE, read_rows
from evaluators.stats.estimates import Statistic, average_by_control

METRICS = ("right", "below_untrained", "grounded_gain", "information_gain")
"""What is compared, in nats per token; of `right` less is better, of the others more."""

QuestionKey = tuple[str, str, str]
"""Control, example and question."""
Losses = dict[QuestionKey, dict[str, float]]
"""Answer loss of each question by condition."""


def compare_losses(sides: Sequence[Sequence[Path]]) -> list[ComparedView]:
    """Compare answer losses and gains; p-values are not adjusted yet.

    Args:
        sides: for each run the folders of its pooled evaluations, the baseline first.

    Returns:
        Each split and view of which all evaluations have a question in common.
    """
    found = [[_read_losses(folder) for folder in side] for side in sides]
    every = [one for side in found for one in side]
    shared = set(every[0]).intersection(*every[1:])
    views = [
        _compare_view(split, view, [[one[split, view] for one in side] for side in found])
        for split in sort_known((s for s, _ in shared), SPLITS)
        for view in sort_known((v for s, v in shared if s == split), VIEWS)
    ]
    return [view for view in views if view.controls]


def _read_losses(folder: Path) -> dict[tuple[str, str], Losses]:
    """Read the losses of each split and view."""
    out: dict[tuple[str, str], Losses] = {}
    for row in read_rows(folder / LOSSES_FILE):
        key = (row["control_id"], row["example_id"], row["question"])
        own = out.setdefault((row["split"], row["view"]), {})
        own.setdefault(key, {})[row["condition"]] = row["loss"]
    return out


def _compare_view(split: str, view: str, sides: Sequence[Sequence[Losses]]) -> ComparedView:
    every = [one for side in sides for one in side]
    keys = sorted(set(every[0]).intersection(*every[1:]))
    if not keys:
        return ComparedView(split, view, 0, 0, {})
    conditions = sorted(set(every[0][keys[0]]).intersection(*(one[keys[0]] for one in every)))
    controls = np.array([control for control, _, _ in keys])
    pools = [[_control_means(one, keys, conditions, controls) for one in side] for side in sides]
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


def _control_means(
    losses: Mapping[QuestionKey, Mapping[str, float]],
    keys: Sequence[QuestionKey],
    conditions: Sequence[str],
    controls: np.ndarray,
) -> np.ndarray:
    """Average the losses [C, K] of each control under each condition."""
    columns = [
        average_by_control(np.array([losses[key][name] for key in keys]), controls)[1]
        for name in conditions
    ]
    return np.stack(columns, 1)


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
