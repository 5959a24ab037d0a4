"""The panel: answer losses by condition, gains, and what was left out, for one split and view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.stats.estimates import Bootstrap, Least, Statistic, over_controls

# conditions that tell the decoder nothing about the row at hand; the information gain is taken
# over the best of them. `noise` and `wrong_layer` are none: no decoder was ever given such, so a
# loss there says nothing about guessing. `prior` is a decoder that was trained to guess
UNINFORMED = ("other", "mean", "none", "prior")
UNTRAINED = ("untrained_right", "untrained_other")


def panel(
    losses: Mapping[str, np.ndarray], controls: np.ndarray, config: EvaluateConfig
) -> dict[str, Any]:
    """Estimates with intervals over controls.

    Args:
        losses: [N] answer loss of each question by condition; all over the same questions.
        controls: [N] control of each question; where N is 0 every estimate is None, with n 0.

    Returns:
        {"answer_loss": {condition: Estimate}, "untrained": {"right", "other"}, "grounded_gain",
        "information_gain", "below_untrained", "best_uninformed"}; nats a token.
        "best_uninformed" names the rival of the information gain, or is None where N is 0.
    """
    names = list(losses)
    values_CK = columns(losses, controls)
    estimate = sampler(values_CK, config)
    rivals = [name for name in UNINFORMED if name in names]
    return {
        "answer_loss": {
            name: estimate(mean(names, name)) for name in names if name not in UNTRAINED
        },
        "untrained": {
            name.removeprefix("untrained_"): estimate(mean(names, name)) for name in UNTRAINED
        },
        "grounded_gain": estimate(least_above(names, ["other"], "right")),
        "information_gain": estimate(least_above(names, rivals, "right")),
        "below_untrained": estimate(least_above(names, ["untrained_right"], "right")),
        "best_uninformed": best(values_CK, names, rivals),
    }


def sampler(values_CK: np.ndarray, config: EvaluateConfig) -> Bootstrap:
    """The bootstrap of `values_CK` that the config asks for."""
    return Bootstrap(
        values_CK, samples=config.bootstrap, seed=config.seed, least=config.min_controls
    )


def columns(values: Mapping[str, np.ndarray], controls: np.ndarray) -> np.ndarray:
    """Means [C, K] over each control, one column a name."""
    return np.stack([over_controls(values[name], controls)[1] for name in values], 1)


def mean(names: Sequence[str], name: str) -> Statistic:
    """The mean of one column."""
    return lambda means: means[..., names.index(name)]


def least_above(names: Sequence[str], rivals: Sequence[str], name: str) -> Least:
    """The least of some columns' means, chosen anew in each sample, less that of another."""
    return Least(tuple(names.index(rival) for rival in rivals), names.index(name))


def best(values_CK: np.ndarray, names: Sequence[str], rivals: Sequence[str]) -> str | None:
    """The rival with the least mean; None where there are no controls."""
    if not len(values_CK):
        return None
    return min(rivals, key=lambda name: float(values_CK[:, names.index(name)].mean()))
