"""A predictor on a task: its settings tried on validation rows, the best one on the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.documents.document import Document
from core.records.estimate import Estimate
from evaluators.answers.metrics.words import word_f1
from evaluators.stats.estimates import Resampling, average_by_control, mean_estimate
from evaluators.tasks.config import TasksConfig
from evaluators.tasks.metrics import PredictorMetrics, SettingValue, TaskMetrics, TryMetrics
from evaluators.tasks.predictors.base import Predictor, Sees, Setting
from evaluators.tasks.quartets import score_choice
from evaluators.tasks.rows import Headline, TaskData, TaskRow
from generators.rules.naming import is_exactly, names_any

OWN = "lit"
"""The method that the others are held against."""

ChosenSetting = dict[str, SettingValue]
Values = list[float | None]
"""A measure of each row; None where the row has no options to choose from."""


class PredictorAnswers(Document):
    """A predictor's answers to the rows of a task.

    Attributes:
        sees: what it sees of a row.
        tries: each setting with the headline measure on validation rows.
        setting: the best of them.
        answers: to the test rows, in their order.
        scores: of the options of each test row; empty where it has none.
        by_layer: each block that it can read, with the headline measure of each test row under the
            best setting of that block.
    """

    sees: Sees
    tries: list[tuple[ChosenSetting, float]]
    setting: ChosenSetting
    answers: list[str]
    scores: list[list[float]]
    by_layer: list[tuple[int, Values]]


def run_predictor(predictor: Predictor, sees: Sees, data: TaskData) -> PredictorAnswers:
    """Choose a predictor's setting on validation rows, and let it answer the test rows.

    Of equally good settings the first is taken. Where it can read several blocks, the best setting
    of each is measured on the test rows too.
    """
    tries = [
        (dict(setting), _mean(_try(predictor, setting, data.validation, data.headline)))
        for setting in predictor.settings()
    ]
    best = _best(tries)
    answers = predictor.write(data.test, best)
    scores = _score(predictor, data.test, best)
    layers = sorted({int(setting["layer"]) for setting, _ in tries if "layer" in setting})
    by_layer: list[tuple[int, Values]] = []
    for layer in layers if sees == "activations" else ():
        own = _best([one for one in tries if one[0].get("layer") == layer])
        values = (
            _values(data.headline, data.test, answers, scores)
            if own == best
            else _try(predictor, own, data.test, data.headline)
        )
        by_layer.append((layer, values))
    return PredictorAnswers(
        sees=sees, tries=tries, setting=best, answers=answers, scores=scores, by_layer=by_layer
    )


def measure_task(
    data: TaskData,
    found: Mapping[str, PredictorAnswers],
    config: TasksConfig,
    checkpoints: int | None = None,
) -> TaskMetrics:
    """Estimate each predictor's accuracy, with intervals over groups of rows.

    Args:
        data: the task.
        found: answers of each predictor.
        config: of the bootstrap.
        checkpoints: among which the training of LIT chose; None where that is not known.
    """
    return TaskMetrics(
        headline=data.headline,
        counts=data.counts,
        why_not=data.why_not,
        chance=data.chance,
        facts=dict(data.facts) or None,
        choices=sum(bool(row.options) for row in data.test),
        predictors={
            name: _measure(data, own, found.get(OWN), config)
            if name != OWN
            else _measure(data, own, None, config).model_copy(update={"checkpoints": checkpoints})
            for name, own in found.items()
        },
    )


def task_answer_rows(data: TaskData, found: Mapping[str, PredictorAnswers]) -> list[dict[str, Any]]:
    """Make the rows of task_answers.parquet of one task, one a test row and predictor."""
    named = not data.compares_words
    return [
        {
            "task": data.name,
            "predictor": name,
            "row_id": row.row_id,
            "group": row.group,
            "question": row.questions[0],
            "gold": row.answer,
            "answer": answer,
            "contained": float(names_any(answer, row.answers)) if named else None,
            "exact": float(is_exactly(answer, row.answers)) if named else None,
            "similarity": None if named else word_f1(answer, row.answer),
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
    mine = _values(data.headline, rows, own.answers, own.scores)
    lead = None
    if lit is not None:
        theirs = _values(data.headline, rows, lit.answers, lit.scores)
        less = [
            None if a is None or b is None else a - b for a, b in zip(theirs, mine, strict=True)
        ]
        lead = _estimate(data.headline, less, rows, config)
    written: dict[str, Estimate] = {}
    if not data.compares_words:
        named = _values("contained", rows, own.answers, [])
        exact: Values = [
            float(is_exactly(answer, row.answers))
            for answer, row in zip(own.answers, rows, strict=True)
        ]
        written["contained"] = _estimate("contained", named, rows, config)
        written["exact"] = _estimate("contained", exact, rows, config)
    else:
        alike: Values = [
            word_f1(answer, row.answer) for answer, row in zip(own.answers, rows, strict=True)
        ]
        written["similarity"] = _estimate("contained", alike, rows, config)
    return PredictorMetrics(
        sees=own.sees,
        setting=own.setting,
        chosen=_estimate("chosen", _values("chosen", rows, [], own.scores), rows, config),
        lead=lead,
        by_layer={
            str(layer): _estimate(data.headline, values, rows, config)
            for layer, values in own.by_layer
        },
        tries=[TryMetrics(setting=setting, validation=share) for setting, share in own.tries],
        **written,
    )


def _try(
    predictor: Predictor, setting: Setting, rows: Sequence[TaskRow], headline: Headline
) -> Values:
    """Measure a setting on some rows."""
    if headline == "contained":
        return _values(headline, rows, predictor.write(rows, setting), [])
    return _values(headline, rows, [], _score(predictor, rows, setting))


def _score(predictor: Predictor, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
    """Score the options of each row that has some."""
    scores: list[list[float]] = [[] for _ in rows]
    asked = [i for i, row in enumerate(rows) if row.options]
    if asked:
        found = predictor.score([rows[i] for i in asked], setting)
        for i, own in zip(asked, found, strict=True):
            scores[i] = own
    return scores


def _values(
    measure: Headline,
    rows: Sequence[TaskRow],
    answers: Sequence[str],
    scores: Sequence[Sequence[float]],
) -> Values:
    if measure == "contained":
        return [
            float(names_any(answer, row.answers)) for answer, row in zip(answers, rows, strict=True)
        ]
    return [
        score_choice(own, row.gold) if row.options else None
        for own, row in zip(scores, rows, strict=True)
    ]


def _estimate(
    measure: Headline, values: Values, rows: Sequence[TaskRow], config: TasksConfig
) -> Estimate:
    """Estimate a mean over groups; rows of one choice hang together, and are one unit."""
    kept = [
        (value, row.group if measure == "contained" else str(row.choice))
        for value, row in zip(values, rows, strict=True)
        if value is not None
    ]
    return estimate_groups([value for value, _ in kept], [unit for _, unit in kept], config)


def estimate_groups(
    values: Sequence[float], groups: Sequence[str], config: TasksConfig
) -> Estimate:
    """Estimate the mean over groups of their mean values, with an interval over groups."""
    _, means_C = average_by_control(np.array(values), np.array(groups))
    return mean_estimate(means_C, resampling_of(config))


def resampling_of(config: TasksConfig) -> Resampling:
    """Return how subjects, or groups of four, are resampled."""
    return Resampling(samples=config.bootstrap, seed=config.seed, min_controls=config.min_intervals)


def _mean(values: Values) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def _best(tries: Sequence[tuple[ChosenSetting, float]]) -> ChosenSetting:
    return max(tries, key=lambda one: one[1])[0]
