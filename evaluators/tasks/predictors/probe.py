"""`probe`: logistic regression from the last token's activation to the training rows' answers.

It is trained on this very task, and can say no answer that its training rows do not have; so it has
no place in tasks whose answers are all new.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.tasks.predictors.base import PredictorContext, PredictorKind, Setting
from evaluators.tasks.rows import TaskRow

_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the L2 penalty."""
_ITERATIONS = 500
_UNKNOWN = -1e9
"""Score of an option that no training row has."""


class _Probe:
    def __init__(self, context: PredictorContext) -> None:
        self._context = context
        self._fitted: dict[tuple[int, float], Any] = {}

    def settings(self) -> list[Setting]:
        return [
            {"layer": layer, "strength": strength}
            for layer, strength in itertools.product(self._context.layers, _STRENGTHS)
        ]

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        model = self._fit(setting)
        return [str(answer) for answer in model.predict(_vectors(rows, setting))]

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        model = self._fit(setting)
        column = {str(answer): i for i, answer in enumerate(model.classes_)}
        found = model.predict_log_proba(_vectors(rows, setting))
        return [
            [
                float(found[i, column[option]]) if option in column else _UNKNOWN
                for option in row.options
            ]
            for i, row in enumerate(rows)
        ]

    def _fit(self, setting: Setting) -> Any:
        key = (int(setting["layer"]), float(setting["strength"]))
        if key not in self._fitted:
            self._fitted[key] = fit_probe(self._context.train, *key)
        return self._fitted[key]


def fit_probe(rows: Sequence[TaskRow], layer: int, strength: float) -> Any:
    """Fit a classifier of scikit-learn on standardised activations.

    Args:
        rows: with the answers to learn.
        layer: block whose activations are read.
        strength: inverse strength of the L2 penalty.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    answers = [row.answer for row in rows]
    features = np.stack([row.last(layer) for row in rows])
    if len(set(answers)) == 1:  # there is nothing to tell apart
        return DummyClassifier().fit(features, answers)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, answers)


def _vectors(rows: Sequence[TaskRow], setting: Setting) -> np.ndarray:
    return np.stack([row.last(int(setting["layer"])) for row in rows])


def _make(context: PredictorContext) -> _Probe | None:
    return _Probe(context) if context.closed else None


PROBE = PredictorKind(name="probe", sees="activations", make=_make)
