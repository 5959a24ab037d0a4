"""Written answers and identification of several evaluations, on what all of them were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.tables import SPLITS, VIEWS
from core.wording import sort_pairs
from evaluators.answers.answer_quality import parse_answers
from evaluators.answers.metrics import METRICS
from evaluators.comparison.values import ComparedValue, ComparedView, compare_value
from evaluators.measure.panel import column_mean
from evaluators.measure.result_files import ANSWERS_FILE, ITEMS_FILE, read_rows
from evaluators.stats.estimates import average_by_control

IDENTIFIED = "identified"
"""Share of the items of identification in which gold was found, given the row's own activations."""

MetricKey = tuple[str, str, str]
"""Split, view and metric."""
Scores = dict[tuple[str, ...], float]
"""Score of each answer or item; a key starts with the control."""


def compare_answers(sides: Sequence[Sequence[Path]]) -> list[ComparedView]:
    """Compare written answers and identification, given the rows' own activations.

    Args:
        sides: for each run the folders of its pooled evaluations, the baseline first.

    Returns:
        Each split and view of which all runs have an answer to the same question, or an item with
        the same options; p-values are not adjusted yet.
    """
    found = [[_read_scores(folder) for folder in side] for side in sides]
    every = [one for side in found for one in side]
    shared = set(every[0]).intersection(*every[1:])
    out = []
    for split, view in sort_pairs(((s, v) for s, v, _ in shared), SPLITS, VIEWS):
        compared = {
            metric: _compare_metric([[one[split, view, metric] for one in side] for side in found])
            for metric in (IDENTIFIED, *(one.name for one in METRICS))
            if (split, view, metric) in shared
        }
        kept = {metric: line for metric, line in compared.items() if line.values}
        if kept:
            out.append(
                ComparedView(
                    split,
                    view,
                    max(line.controls for line in kept.values()),
                    max(line.questions for line in kept.values()),
                    {metric: line.values for metric, line in kept.items()},
                )
            )
    return out


@dataclass(frozen=True, slots=True)
class _ComparedMetric:
    """One metric of a split and view: what all runs share of it, and a value for each run."""

    controls: int
    questions: int
    values: tuple[ComparedValue, ...]


def _read_scores(folder: Path) -> dict[MetricKey, Scores]:
    """Read the scores of one evaluation; a file that it does not have gives none."""
    out: dict[MetricKey, Scores] = {}
    answers, items = (
        read_rows(path if (path := folder / name).is_file() else None)
        for name in (ANSWERS_FILE, ITEMS_FILE)
    )
    for row in answers:
        own, _ = parse_answers(row)
        key = (row["control_id"], row["example_id"], row["question"])
        for metric in METRICS:
            if metric.applies(own):
                place = (row["split"], row["view"], metric.name)
                out.setdefault(place, {})[key] = metric.score(own)
    for row in items:
        if row["condition"] == "right":
            item = (row["control_id"], row["example_id"], row["question"], *row["options"])
            out.setdefault((row["split"], row["view"], IDENTIFIED), {})[item] = row["correct"]
    return out


def _compare_metric(sides: Sequence[Sequence[Mapping[tuple[str, ...], float]]]) -> _ComparedMetric:
    """Compare the scores of what all runs share."""
    every = [one for side in sides for one in side]
    keys = sorted(set(every[0]).intersection(*every[1:]))
    if not keys:
        return _ComparedMetric(0, 0, ())
    controls = np.array([key[0] for key in keys])
    pools = [
        [
            average_by_control(np.array([one[key] for key in keys]), controls)[1][:, None]
            for one in side
        ]
        for side in sides
    ]
    means_C = [np.mean(pool, 0)[:, 0] for pool in pools]
    statistic = column_mean(["score"], "score")
    values = tuple(
        compare_value(pools[0], pool, statistic, own_C - means_C[0])
        for pool, own_C in zip(pools, means_C, strict=True)
    )
    return _ComparedMetric(len(pools[0][0]), len(keys), values)
