"""Is the decoder as often right as it is sure? Over the items of identification.

The probability of an option is the softmax over −loss, with the losses in nats a token: lengths
are taken out here as they are in the choice itself. Shapes: N items, C controls, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.measure.panel import sampler
from evaluators.stats.estimates import Estimate

BINS = 10
"""Bins of equal width in which confidence and accuracy are compared."""
_DRAWS = 2000
_NUMBERS = 1 << 22
"""Numbers that are drawn at once; which ones they are does not depend on it."""


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


def error_if_calibrated(
    confidence_N: np.ndarray, controls_N: np.ndarray, config: EvaluateConfig
) -> Estimate:
    """The error that a decoder with these confidences shows where it is as often right as sure.

    A finite number of items never falls on the line, so the expected calibration error of a
    calibrated decoder is above zero too, and the more so the fewer items a bin has. An error within
    this range says nothing against the decoder.

    Returns:
        The mean over drawn outcomes, each right with its own confidence, and the range of 95 % of
        them; n counts controls.
    """
    n = len(np.unique(controls_N))
    if not len(confidence_N):
        return {"estimate": None, "low": None, "high": None, "n": 0}
    generator = np.random.default_rng(config.seed)
    in_bin_NB = np.eye(BINS)[_bins(confidence_N)]
    at_once = max(1, _NUMBERS // len(confidence_N))
    parts = []
    for first in range(0, _DRAWS, at_once):
        shape = (min(at_once, _DRAWS - first), len(confidence_N))
        right_SN = generator.random(shape) < confidence_N
        parts.append(np.abs((right_SN - confidence_N) @ in_bin_NB).sum(1) / len(confidence_N))
    errors_S = np.concatenate(parts)
    low, high = (float(end) for end in np.quantile(errors_S, (0.025, 0.975)))
    few = n < config.min_controls
    return {
        "estimate": float(errors_S.mean()),
        "low": None if few else low,
        "high": None if few else high,
        "n": n,
    }


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
