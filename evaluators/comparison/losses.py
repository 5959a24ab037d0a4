"""Answer losses and gains of several evaluations, on the questions that all of them were asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.records.tables import SPLITS, VIEWS
from core.text.wording import sort_pairs
from evaluators.comparison.shared_questions import read_losses
from evaluators.comparison.values import ComparedMetric, ComparedView, compare_shared
from evaluators.measure.panel import RIVALS, UNINFORMED, column_mean, find_lowest, lowest_minus

METRICS = (
    *("right", "hidden_gain", "below_rivals"),
    *("below_untrained", "grounded_gain", "information_gain"),
)
"""What is compared where all runs have it, in nats per token; of `right` less is better, of the
others more."""


def compare_losses(sides: Sequence[Sequence[Path]]) -> list[ComparedView]:
    """Compare answer losses and gains; p-values are not adjusted yet.

    Args:
        sides: for each run the folders of its pooled evaluations, the baseline first.

    Returns:
        Each split and view of which all evaluations have a question in common.
    """
    found = [[read_losses(folder) for folder in side] for side in sides]
    every = [one for side in found for one in side]
    out = []
    for split, view in sort_pairs(set(every[0]).intersection(*every[1:]), SPLITS, VIEWS):
        losses = [[one[split, view] for one in side] for side in found]
        if (compared := compare_shared(split, view, losses, _metrics)) is not None:
            out.append(compared)
    return out


def _rivals(metric: str, conditions: Sequence[str]) -> list[str]:
    """Return the conditions whose least loss a gain is measured from; empty where none is shared.

    The hidden gain and the trained rivals say something in masked views; elsewhere no run has
    `swapped`.
    """
    wanted: dict[str, Sequence[str]] = {
        "hidden_gain": ["swapped"],
        "below_rivals": RIVALS if "swapped" in conditions else (),
        "below_untrained": ["untrained_right"],
        "grounded_gain": ["other"],
        "information_gain": UNINFORMED,
    }
    return [name for name in wanted[metric] if name in conditions]


def _metrics(conditions: Sequence[str]) -> dict[str, ComparedMetric]:
    right = conditions.index("right")
    found = {"right": ComparedMetric(column_mean(conditions, "right"), lambda m_CK: m_CK[:, right])}
    for metric in METRICS[1:]:
        rivals = _rivals(metric, conditions)
        if not rivals:
            continue

        def gain(means_CK: np.ndarray, rivals: Sequence[str] = rivals) -> np.ndarray:
            rival = find_lowest(means_CK, conditions, rivals)
            assert rival is not None, "there is a control"
            gain_C: np.ndarray = means_CK[:, conditions.index(rival)] - means_CK[:, right]
            return gain_C

        found[metric] = ComparedMetric(lowest_minus(conditions, rivals, "right"), gain)
    return found
