"""A predictor on a task: its settings tried on validation rows, the best one on the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators.stats.estimates import Bootstrap, Estimate, average_by_control
from evaluators.tasks.answers import is_exactly, names_any
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.metrics import PredictorMetrics, TaskMetrics, TryMetrics
from evaluators.tasks.predictors.base import Predictor, Sees, Setting
from evaluators.tasks.quartets import score_choice
from evaluators.tasks.rows import TaskData, TaskRow

OWN = "lit"
"""The method that the others are held against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorAnswers:
    """What a predictor said.

    Attributes:
        sees: what it sees of a row.
        tries: each setting with its share of named objects on validation rows.
        setting: the best of them.
        answers: to the test rows, in their order.
        by_layer: for each block that it can read, its best setting's answers to the test rows.
        scores: of the options of each test row; empty where it has none.
    """

    sees: Sees
    tries: list[tuple[dict[str, int | float | str], float]]
    setting: dict[str, int | float | str]
    answers: list[str]
    by_layer: dict[int, list[str]]
    scores: list[list[float]]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "sees": self.sees,
            "tries": [list(one) for one in self.tries],
            "setting": self.setting,
            "answers": self.answers,
            "by_layer": [[layer, answers] for layer, answers in self.by_layer.items()],
            "scores": self.scores,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PredictorAnswers:
        """Read what `to_json` returned."""
        return cls(
            sees=value["sees"],
            tries=[(setting, share) for setting, share in value["tries"]],
            setting=value["setting"],
            answers=value["answers"],
            by_layer={int(layer): answers for layer, answers in value["by_layer"]},
            scores=value["scores"],
        )


def run_predictor(predictor: Predictor, sees: Sees, data: TaskData) -> PredictorAnswers:
    """Choose a predictor's setting on validation rows, and let it answer the test rows.

    Of equally good settings the first is taken. Where it can read several blocks, the best setting
    of each answers the test rows too.
    """
    tries = [
        (dict(setting), _share_named(predictor.write(data.validation, setting), data.validation))
        for setting in predictor.settings()
    ]
    best = _best(tries)
    written: dict[str, list[str]] = {}

    def write(setting: Setting) -> list[str]:
        key = repr(sorted(setting.items()))
        if key not in written:
            written[key] = predictor.write(data.test, setting)
        return written[key]

    layers = sorted({int(setting["layer"]) for setting, _ in tries if "layer" in setting})
    by_layer = {
        layer: write(_best([one for one in tries if one[0].get("layer") == layer]))
        for layer in layers
        if sees == "activations"
    }
    with_options = [i for i, row in enumerate(data.test) if row.options]
    scores: list[list[float]] = [[] for _ in data.test]
    if with_options:
        found = predictor.score([data.test[i] for i in with_options], best)
        for i, own in zip(with_options, found, strict=True):
            scores[i] = own
    return PredictorAnswers(
        sees=sees,
        tries=tries,
        setting=best,
        answers=write(best),
        by_layer=by_layer,
        scores=scores,
    )


def measure_task(
    data: TaskData, found: Mapping[str, PredictorAnswers], config: TasksConfig
) -> TaskMetrics:
    """Estimate what each predictor got right, with intervals over groups of rows."""
    return TaskMetrics(
        counts=data.counts,
        why_not=data.why_not,
        choices=sum(bool(row.options) for row in data.test),
        predictors={
            name: _measure(data, own, None if name == OWN else found.get(OWN), config)
            for name, own in found.items()
        },
    )


def item_rows(data: TaskData, found: Mapping[str, PredictorAnswers]) -> list[dict[str, Any]]:
    """Make the rows of answers.parquet of one task, one a test row and predictor."""
    return [
        {
            "task": data.name,
            "predictor": name,
            "row_id": row.row_id,
            "group": row.group,
            "question": row.questions[0],
            "gold": row.answer,
            "answer": answer,
            "contained": float(names_any(answer, row.answers)),
            "exact": float(is_exactly(answer, row.answers)),
            "options": list(row.options),
            "scores": scores,
            "choice": row.choice,
            "chosen": score_choice(scores, row.gold) if row.options else None,
        }
        for name, own in found.items()
        for row, answer, scores in zip(data.test, own.answers, own.scores, strict=True)
    ]


def _measure(
    data: TaskData, own: PredictorAnswers, lit: PredictorAnswers | None, config: TasksConfig
) -> PredictorMetrics:
    rows = data.test
    named = _named(own.answers, rows)
    exact = [
        float(is_exactly(answer, row.answers))
        for answer, row in zip(own.answers, rows, strict=True)
    ]
    lead = None
    if lit is not None:
        lead = _estimate(_named(lit.answers, rows) - named, rows, config)
    return PredictorMetrics(
        sees=own.sees,
        setting=own.setting,
        contained=_estimate(named, rows, config),
        exact=_estimate(np.array(exact), rows, config),
        chosen=_estimate_choices(own.scores, rows, config),
        lead=lead,
        by_layer={
            str(layer): _estimate(_named(answers, rows), rows, config)
            for layer, answers in own.by_layer.items()
        },
        tries=[TryMetrics(setting=setting, validation=share) for setting, share in own.tries],
    )


def _estimate(values: np.ndarray, rows: Sequence[TaskRow], config: TasksConfig) -> Estimate:
    """Estimate a mean over groups."""
    return _over(values, [row.group for row in rows], config)


def _estimate_choices(
    scores: Sequence[Sequence[float]], rows: Sequence[TaskRow], config: TasksConfig
) -> Estimate:
    """Estimate the share of right choices; rows of one choice hang together and are one unit."""
    values = [
        (score_choice(own, row.gold), str(row.choice))
        for own, row in zip(scores, rows, strict=True)
        if row.options
    ]
    return _over(np.array([value for value, _ in values]), [unit for _, unit in values], config)


def _over(values: np.ndarray, units: Sequence[str], config: TasksConfig) -> Estimate:
    _, means_C = average_by_control(values, np.array(units))
    estimate = Bootstrap(
        means_C[:, None],
        samples=config.bootstrap,
        seed=config.seed,
        min_controls=config.min_intervals,
    )
    return estimate(lambda means: means[..., 0])


def _named(answers: Sequence[str], rows: Sequence[TaskRow]) -> np.ndarray:
    return np.array(
        [float(names_any(answer, row.answers)) for answer, row in zip(answers, rows, strict=True)]
    )


def _share_named(answers: Sequence[str], rows: Sequence[TaskRow]) -> float:
    return float(_named(answers, rows).mean())


def _best(
    tries: Sequence[tuple[dict[str, int | float | str], float]],
) -> dict[str, int | float | str]:
    return max(tries, key=lambda one: one[1])[0]
