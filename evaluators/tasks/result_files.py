"""The files of the step `tasks`: their names, columns and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from evaluators.measure.metrics import Metrics
from evaluators.measure.result_rows import WHOLE, result_rows
from evaluators.tasks.metrics import TasksMetrics

TASKS_FILE = "tasks.json"
TASK_ANSWERS_FILE = "task_answers.parquet"

TASK_ANSWERS = pa.schema(
    [
        *((name, pa.string()) for name in ("task", "predictor", "row_id", "group")),
        *((name, pa.string()) for name in ("question", "gold", "answer")),
        ("contained", pa.float64()),
        ("exact", pa.float64()),
        ("similarity", pa.float64()),
        ("options", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("choice", pa.int64()),
        ("chosen", pa.float64()),
    ]
)
"""One row a test row and predictor: the written answer, whether it names the object or is it, and
the scores of the four options where the row has some."""


def task_rows(metrics: TasksMetrics, *, min_intervals: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of results.parquet: each number under `TASK.PREDICTOR.MEASURE`.

    Args:
        metrics: what was measured.
        min_intervals: subjects, or choices, that an interval needs.
    """
    named = {
        f"{task}.{predictor}": own
        for task, found in metrics.tasks.items()
        for predictor, own in found.predictors.items()
    }
    return number_rows(named, min_intervals=min_intervals)


def number_rows(named: Mapping[str, Metrics], *, min_intervals: int) -> Iterator[dict[str, Any]]:
    """Yield a row of results.parquet for each estimate of metrics that are named."""
    about = {"split": "test", "view": "task", "foreign_target": False}
    for row in result_rows(WHOLE, named, min_controls=min_intervals):
        yield {**about, **row}
