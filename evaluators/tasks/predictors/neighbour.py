"""`neighbour`: the answer of the training rows whose activations are nearest, by cosine."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from evaluators.tasks.predictors.base import PredictorContext, PredictorKind, Setting
from evaluators.tasks.rows import TaskRow

_NEIGHBOURS = (1, 3, 5, 10)
_LEAST = 1e-6
"""Least deviation of a feature, and least length of a vector, that is divided by."""


class _Neighbour:
    def __init__(self, context: PredictorContext) -> None:
        self._context = context

    def settings(self) -> list[Setting]:
        return [
            {"layer": layer, "neighbours": k}
            for layer, k in itertools.product(self._context.layers, _NEIGHBOURS)
        ]

    def write(self, rows: Sequence[TaskRow], setting: Setting) -> list[str]:
        return [max(votes, key=lambda name: votes[name]) for votes in self._votes(rows, setting)]

    def score(self, rows: Sequence[TaskRow], setting: Setting) -> list[list[float]]:
        return [
            [votes.get(option, 0.0) for option in row.options]
            for row, votes in zip(rows, self._votes(rows, setting), strict=True)
        ]

    def _votes(self, rows: Sequence[TaskRow], setting: Setting) -> list[dict[str, float]]:
        """Sum the cosine similarity of each row's nearest neighbours by their answer."""
        train, layer = self._context.train, int(setting["layer"])
        known = np.stack([row.last(layer) for row in train])
        mean, deviation = known.mean(0), np.maximum(known.std(0), _LEAST)
        similarity = _unit((np.stack([row.last(layer) for row in rows]) - mean) / deviation) @ (
            _unit((known - mean) / deviation).T
        )
        out: list[dict[str, float]] = []
        for own in similarity:
            votes: dict[str, float] = defaultdict(float)
            for i in np.argsort(-own, kind="stable")[: int(setting["neighbours"])]:
                votes[train[i].answer] += 1 + float(own[i])  # never below zero
            out.append(dict(votes))
        return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    out: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _LEAST)
    return out


def _make(context: PredictorContext) -> _Neighbour | None:
    return _Neighbour(context) if context.closed else None


NEIGHBOUR = PredictorKind(name="neighbour", sees="activations", make=_make)
