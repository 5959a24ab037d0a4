"""Is the decoder as often right as it is sure? Over the items of identification.

The probability of an option is the softmax over −loss, with the losses in nats a token: lengths
are taken out here as they are in the choice itself. Shapes: N items, C controls, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.panel import sampler
from evaluators.statistics import Estimate

BINS = 10
"""Bins of equal width in which confidence and accuracy are compared."""


def confidence(losses: Sequence[Sequence[float]]) -> np.ndarray:
    """[N] probability of each item's most likely option."""
    return np.array([_softmax(-np.array(own)).max() for own in losses])


def calibration_error(
    confidence_N: np.ndarray, correct_N: np.ndarray, controls_N: np.ndarray, config: EvaluateConfig
) -> Estimate:
    """Expected calibration error: |accuracy − confidence| of each bin, weighted by its items."""
    names, control_of = np.unique(controls_N, return_inverse=True)
    sums = np.zeros((len(names), BINS + 1))  # of each bin, and last the number of items
    np.add.at(sums, (control_of, _bins(confidence_N)), correct_N - confidence_N)
    sums[:, BINS] = np.bincount(control_of, minlength=len(names))
    return sampler(sums, config)(lambda means: np.abs(means[..., :BINS]).sum(-1) / means[..., BINS])


def reliability(confidence_N: np.ndarray, correct_N: np.ndarray) -> list[dict[str, Any]]:
    """Mean confidence, accuracy and items of each bin that has some, from the least sure up."""
    bin_of = _bins(confidence_N)
    return [
        {
            "confidence": float(confidence_N[bin_of == b].mean()),
            "accuracy": float(correct_N[bin_of == b].mean()),
            "items": int((bin_of == b).sum()),
        }
        for b in np.unique(bin_of)
    ]


def _bins(confidence_N: np.ndarray) -> np.ndarray:
    return np.minimum((confidence_N * BINS).astype(int), BINS - 1)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
