"""The mean over relations of each method's accuracy: one more row of the tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from core.records.estimate import Estimate
from evaluators.stats.estimates import Bootstrap
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.measure import OWN, resampling_of
from evaluators.tasks.metrics import PredictorMetrics, TaskMetrics

Row = Mapping[str, Any]


def measure_mean(
    answers: Sequence[Row],
    measured: Mapping[str, TaskMetrics],
    relations: Collection[str],
    config: TasksConfig,
) -> TaskMetrics | None:
    """Average each method over the relations, all of which weigh the same.

    A subject of several relations is drawn with all of them in a bootstrap sample.

    Args:
        answers: rows of task_answers.parquet.
        measured: what was measured of each task.
        relations: names of the tasks that are relations.
        config: of the bootstrap.

    Returns:
        The means; None with fewer than two relations that were measured.
    """
    names = [name for name in relations if name in measured and measured[name].predictors]
    if len(names) < 2:
        return None
    shared = [
        method
        for method in measured[names[0]].predictors
        if all(method in measured[name].predictors for name in names)
    ]
    found: dict[str, list[Row]] = {method: [] for method in shared}
    for row in answers:
        if row["task"] in names and row["predictor"] in found:
            found[row["predictor"]].append(row)
    own = found.get(OWN)

    def estimate(rows: Sequence[Row], value: Callable[[int], float]) -> Estimate:
        return _estimate(rows, [value(i) for i in range(len(rows))], names, config)

    def measure(method: str) -> PredictorMetrics:
        rows = found[method]
        lead = None
        if own is not None and method != OWN:
            # the rows of a task are the same, in the same order, for every method
            lead = estimate(rows, lambda i: own[i]["contained"] - rows[i]["contained"])
        return PredictorMetrics(
            sees=measured[names[0]].predictors[method].sees,
            setting={},
            contained=estimate(rows, lambda i: rows[i]["contained"]),
            exact=estimate(rows, lambda i: rows[i]["exact"]),
            chosen=Estimate(),
            lead=lead,
            by_layer={},
            tries=[],
        )

    return TaskMetrics(
        counts={"relations": len(names)},
        choices=0,
        predictors={method: measure(method) for method in shared},
    )


def _estimate(
    rows: Sequence[Row], values: Sequence[float], names: Sequence[str], config: TasksConfig
) -> Estimate:
    """Estimate the mean over tasks of the mean over their subjects."""
    subjects = {name: i for i, name in enumerate(dict.fromkeys(row["group"] for row in rows))}
    sums = np.zeros((len(subjects), len(names)))
    counts = np.zeros_like(sums)
    for row, value in zip(rows, values, strict=True):
        place = subjects[row["group"]], names.index(row["task"])
        sums[place] += value
        counts[place] += 1

    def mean(means: np.ndarray) -> np.ndarray:
        own, many = np.split(means, 2, axis=-1)
        found: np.ndarray = np.mean(own / np.maximum(many, 1e-9), axis=-1)
        return found

    return Bootstrap(np.concatenate([sums, counts], axis=1), resampling_of(config))(mean)
