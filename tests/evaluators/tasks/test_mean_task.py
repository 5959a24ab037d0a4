"""The mean over relations: each weighs the same, and a subject of several is drawn with all."""

from __future__ import annotations

from typing import Any

import pytest

from core.records.estimate import Estimate
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.mean_task import measure_mean
from evaluators.tasks.metrics import PredictorMetrics, TaskMetrics

CONFIG = TasksConfig(bootstrap=500)
RIGHT = {
    ("sport", "lit"): [1.0] * 10 + [0.0] * 10,
    ("sport", "probe"): [0.0] * 20,
    ("star", "lit"): [1.0] * 10,
    ("star", "probe"): [1.0] * 5 + [0.0] * 5,
    ("star", "asking"): [1.0] * 10,
}


def rows(shared: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "predictor": method,
            "group": f"{i}" if shared else f"{task}-{i}",
            "contained": value,
            "exact": value / 2,
        }
        for (task, method), values in RIGHT.items()
        for i, value in enumerate(values)
    ]


def task(*methods: str) -> TaskMetrics:
    own = PredictorMetrics(sees="activations", setting={}, chosen=Estimate(), by_layer={}, tries=[])
    return TaskMetrics(counts={}, choices=0, predictors=dict.fromkeys(methods, own))


MEASURED = {
    "sport": task("lit", "probe"),
    "star": task("lit", "probe", "asking"),
    "unknown": task(),
    "sport_direct": task("lit"),
}
RELATIONS = ("sport", "star", "unknown")


def mean(shared: bool = False) -> TaskMetrics:
    found = measure_mean(rows(shared), MEASURED, RELATIONS, CONFIG)
    assert found is not None
    return found


def cell(found: TaskMetrics, method: str, measure: str) -> Estimate:
    own = found.cell(method, measure)
    assert own is not None
    return own


def test_each_relation_weighs_the_same() -> None:
    found = mean()
    assert cell(found, "lit", "contained").estimate == pytest.approx(0.75)
    assert cell(found, "probe", "contained").estimate == pytest.approx(0.25)
    assert cell(found, "lit", "exact").estimate == pytest.approx(0.375)
    assert cell(found, "probe", "lead").estimate == pytest.approx(0.5)
    assert found.cell("lit", "lead") is None
    assert found.counts == {"relations": 2}


def test_subjects_are_counted_and_drawn_once_whatever_their_relations() -> None:
    apart, together = (cell(mean(shared), "lit", "contained") for shared in (False, True))
    assert (apart.n, together.n) == (30, 20)
    assert apart.low is not None
    assert apart.high is not None
    assert 0.6 < apart.low < 0.75 < apart.high < 0.9


def test_a_method_that_a_relation_lacks_has_no_mean() -> None:
    assert set(mean().predictors) == {"lit", "probe"}


def test_one_relation_has_no_mean_beside_it() -> None:
    assert measure_mean(rows(), {"sport": MEASURED["sport"]}, RELATIONS, CONFIG) is None
