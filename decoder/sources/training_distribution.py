"""Out-of-distribution detection: how unlike a decoder's training data activations are.

A token's distance is Mahalanobis': squared, per dimension, over the mean and covariance of training
tokens. The covariance is kept along the strongest principal components and is isotropic in all
other directions. A reading's distance is the median over its tokens, since a few (a sequence's
first above all) lie far out in any text. The threshold comes from cross-validation over training
rows, so that no row is compared with itself.

Shapes: R rows, n tokens of a reading, N tokens of all rows, D d_model, K components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

FALSE_ALARM_RATE = 0.05
"""Share of in-distribution readings that are flagged."""
_COMPONENTS = 32
_FOLDS = 5
_TOKENS = 64
"""Most tokens of a row that are taken, evenly spaced."""


@dataclass(frozen=True, slots=True)
class OODScore:
    """The distance of a reading from what the decoder was trained on.

    Attributes:
        distance: of the reading; about 1 for one of the training distribution.
        share_nearer: share of the held-out rows that lie nearer.
        rows: number of held-out rows.
        out_of_distribution: whether it lies farther than 95 of 100 held-out rows would; None where
            there are too few of them to say (18 or fewer).
    """

    distance: float
    share_nearer: float
    rows: int
    out_of_distribution: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Gaussian:
    """Mean [D], principal components [K, D], their variances [K], and that of all others."""

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual_variance: float

    def distance(self, vectors_nD: np.ndarray) -> float:
        centred_nD = vectors_nD - self.mean
        along_nK = centred_nD @ self.components.T
        residual_n = (centred_nD**2).sum(1) - (along_nK**2).sum(1)
        squared_n = (along_nK**2 / self.variances).sum(1)
        squared_n += residual_n.clip(0) / self.residual_variance
        return float(np.sqrt(np.median(squared_n) / len(self.mean)))


class ActivationOODDetector:
    """Scores how far activations lie from those that a decoder was trained on."""

    def __init__(self, rows: Sequence[np.ndarray], *, seed: int = 0) -> None:
        """Fit the distribution of training rows, and cross-validate the threshold.

        Args:
            rows: readings [n, D] of training rows; at least two.
            seed: of the folds and of the randomised PCA.
        """
        generator = np.random.default_rng(seed)
        sampled = [
            row[np.linspace(0, len(row) - 1, min(len(row), _TOKENS)).astype(int)] for row in rows
        ]
        fold_R = generator.permutation(len(sampled)) % min(_FOLDS, len(sampled))
        held_out = []
        for k in range(int(fold_R.max()) + 1):
            inside = [row for row, fold in zip(sampled, fold_R, strict=True) if fold != k]
            outside = [row for row, fold in zip(sampled, fold_R, strict=True) if fold == k]
            gaussian = _fit(inside, seed)
            held_out += [gaussian.distance(row) for row in outside]
        self._held_out_R = np.sort(held_out)
        self._gaussian = _fit(sampled, seed)

    def score(self, vectors_nD: np.ndarray) -> OODScore:
        """Compare a reading [n, D] with the training rows."""
        distance, rows = self._gaussian.distance(vectors_nD), len(self._held_out_R)
        # of R held-out rows and one more like them, each is as likely to be the k-th farthest
        rank = math.ceil((rows + 1) * (1 - FALSE_ALARM_RATE))
        return OODScore(
            distance,
            float((self._held_out_R < distance).mean()),
            rows,
            bool(distance > self._held_out_R[rank - 1]) if rank <= rows else None,
        )


def _fit(rows: Sequence[np.ndarray], seed: int) -> _Gaussian:
    # float64: attention sinks make most of the variance, and what they leave is a small difference
    tokens_ND = np.concatenate(rows).astype(np.float64)
    count, width = tokens_ND.shape
    k = max(1, min(_COMPONENTS, width // 2, count // 4))
    # a few massive features dominate: without QR the other directions are lost in float32
    with np.errstate(invalid="ignore"):  # constant activations explain no variance
        pca = PCA(
            k,
            svd_solver="randomized",
            iterated_power=2,
            power_iteration_normalizer="QR",
            random_state=seed,
        ).fit(tokens_ND)
    variances_K = pca.explained_variance_
    residual = float(tokens_ND.var(0, ddof=1).sum() - variances_K.sum()) / max(1, width - k)
    floor = 1e-6 * float(variances_K.max(initial=0.0)) + 1e-12
    return _Gaussian(pca.mean_, pca.components_, variances_K.clip(floor), max(residual, floor))
