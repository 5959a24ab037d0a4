"""Are activations of the kind that a decoder was trained on?

A token's distance is Mahalanobis': squared, per dimension, over the mean and covariance of training
tokens, the covariance kept along its strongest directions and even in all others. A reading's
distance is the median over its tokens, since a few (a sequence's first above all) lie far out
in any text. What is usual is told by rows held out in turn, so that no row judges itself.

Shapes: R rows, n tokens of a reading, N tokens of all rows, D d_model, K directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OUTSIDE = 0.05
"""Share of familiar readings that are called unfamiliar."""
_DIRECTIONS = 32
_FOLDS = 5
_TOKENS = 64
"""Most tokens of a row that are taken, evenly spaced."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a reading stands to what the decoder was trained on.

    Attributes:
        distance: of the reading; about 1 for a usual one.
        farther_than: share of the held-out rows that lie nearer.
        rows: number of held-out rows.
        unfamiliar: whether it lies farther than 95 of 100 held-out rows would; None where there are
            too few of them to say (18 or fewer).
    """

    distance: float
    farther_than: float
    rows: int
    unfamiliar: bool | None

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "distance": self.distance,
            "farther_than": self.farther_than,
            "rows": self.rows,
            "unfamiliar": self.unfamiliar,
        }


@dataclass(frozen=True, slots=True)
class _Cloud:
    """Mean [D], strongest directions [K, D] with their variances [K], and that of all others."""

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: float

    def distance(self, vectors_nD: np.ndarray) -> float:
        centred_nD = vectors_nD - self.mean
        along_nK = centred_nD @ self.directions.T
        beside_n = (centred_nD**2).sum(1) - (along_nK**2).sum(1)
        squared_n = (along_nK**2 / self.variances).sum(1) + beside_n.clip(0) / self.rest
        return float(np.sqrt(np.median(squared_n) / len(self.mean)))


class Familiar:
    """What activations a decoder was trained on.

    Args:
        rows: readings [n, D] of training rows; at least two.
        seed: of the folds and of the search for directions.
    """

    def __init__(self, rows: Sequence[np.ndarray], *, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        rows = [
            own[np.linspace(0, len(own) - 1, min(len(own), _TOKENS)).astype(int)] for own in rows
        ]
        fold = draw.permutation(len(rows)) % min(_FOLDS, len(rows))
        held_out = []
        for k in range(int(fold.max()) + 1):
            cloud = _fit([own for own, f in zip(rows, fold, strict=True) if f != k], draw)
            held_out += [cloud.distance(own) for own, f in zip(rows, fold, strict=True) if f == k]
        self._held_out = np.sort(held_out)
        self._cloud = _fit(rows, draw)

    def judge(self, vectors_nD: np.ndarray) -> Verdict:
        """How a reading [n, D] stands to the training rows."""
        distance, rows = self._cloud.distance(vectors_nD), len(self._held_out)
        # of R held-out rows and one more like them, each is as likely to be the k-th farthest
        place = math.ceil((rows + 1) * (1 - OUTSIDE))
        return Verdict(
            distance,
            float((self._held_out < distance).mean()),
            rows,
            bool(distance > self._held_out[place - 1]) if place <= rows else None,
        )


def _fit(rows: Sequence[np.ndarray], draw: np.random.Generator) -> _Cloud:
    tokens_ND = np.concatenate(rows).astype(np.float32)
    mean_D = tokens_ND.mean(0)
    centred_ND = tokens_ND - mean_D
    count, width = centred_ND.shape
    k = max(1, min(_DIRECTIONS, width // 2, count // 4))
    # strongest directions by a randomised search with two turns (Halko, Martinsson & Tropp 2011)
    probe = centred_ND @ draw.standard_normal((width, k + 8)).astype(np.float32)
    for _ in range(2):
        probe = centred_ND @ (centred_ND.T @ np.linalg.qr(probe)[0])
    basis = np.linalg.qr(probe)[0]
    _, lengths, directions = np.linalg.svd(basis.T @ centred_ND, full_matrices=False)
    variances_K = lengths[:k] ** 2 / count
    rest = float((centred_ND**2).sum() / count - variances_K.sum()) / max(1, width - k)
    floor = 1e-6 * float(variances_K.max(initial=0.0)) + 1e-12
    return _Cloud(mean_D, directions[:k], variances_K.clip(floor), max(rest, floor))
