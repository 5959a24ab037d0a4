"""The panel: answer losses by condition and the gains between them, for one set of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.records.estimate import Estimate
from evaluators.config import EvaluateConfig
from evaluators.measure.metrics import PanelMetrics
from evaluators.stats.estimates import (
    Bootstrap,
    LowestMean,
    Resampling,
    Statistic,
    average_by_control,
)

# conditions that tell the decoder nothing about the row at hand; the information gain is taken
# over the best of them. `noise` and `wrong_layer` are none: no decoder was ever given such, so a
# loss there says nothing about guessing. `prior` is a decoder that was trained to guess
UNINFORMED = ("other", "mean", "none", "prior")
UNTRAINED = ("untrained_right", "untrained_other")
# decoders that were trained with the same rows and steps and do not see what is hidden: a decoder
# that reads is better than both
RIVALS = ("prior", "visible_text")
CEILING = "text"
_MIN_RANGE = 0.02
"""Nats per token between rivals and ceiling under which no share of it is told."""


def measure_panel(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    config: EvaluateConfig,
    answer_tokens: np.ndarray | None = None,
) -> PanelMetrics:
    """Estimate losses and gains with intervals over controls.

    Args:
        losses: [N] answer loss of each question by condition; all over the same questions.
        controls: [N] control of each question; where N is 0 every estimate is None, with n 0.
        config: bootstrap settings.
        answer_tokens: [N] tokens of each answer, for the hidden gain of a whole answer.
    """
    names = list(losses)
    values_CK = stack_control_means(losses, controls)
    estimate = make_bootstrap(values_CK, config)
    uninformed = [name for name in UNINFORMED if name in names]
    return PanelMetrics(
        **_measure_hidden(losses, controls, config, answer_tokens),
        **_compare_with_rivals(names, estimate),
        answer_loss={
            name: estimate(column_mean(names, name)) for name in names if name not in UNTRAINED
        },
        untrained={
            name.removeprefix("untrained_"): estimate(column_mean(names, name))
            for name in UNTRAINED
        },
        grounded_gain=estimate(lowest_minus(names, ["other"], "right")),
        information_gain=estimate(lowest_minus(names, uninformed, "right")),
        below_untrained=estimate(lowest_minus(names, ["untrained_right"], "right")),
        best_uninformed=find_lowest(values_CK, names, uninformed),
    )


def _measure_hidden(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    config: EvaluateConfig,
    answer_tokens: np.ndarray | None,
) -> dict[str, Estimate]:
    """Estimate the hidden gain, per token and per answer, and the effect of positions."""
    if "swapped" not in losses:
        return {}

    def estimate_gain(condition: str, weights: np.ndarray | float = 1.0) -> Estimate:
        pair = {name: losses[name] * weights for name in (condition, "right")}
        gain = lowest_minus(list(pair), [condition], "right")
        return make_bootstrap(stack_control_means(pair, controls), config)(gain)

    found = {"hidden_gain": estimate_gain("swapped")}
    if answer_tokens is not None:
        found["hidden_gain_per_answer"] = estimate_gain("swapped", answer_tokens)
    if "shifted_positions" in losses:
        found["position_effect"] = estimate_gain("shifted_positions")
    return found


def _compare_with_rivals(names: Sequence[str], estimate: Bootstrap) -> dict[str, Estimate]:
    """Compare `right` with the trained decoders that do not see what is hidden."""
    rivals = [name for name in RIVALS if name in names]
    if not rivals:
        return {}
    below_rivals = lowest_minus(names, rivals, "right")
    found = {"below_rivals": estimate(below_rivals)}
    if CEILING in names:
        above_ceiling = lowest_minus(names, rivals, CEILING)

        def share(means: np.ndarray) -> np.ndarray:
            recovered: np.ndarray = below_rivals(means)
            shares: np.ndarray = recovered / np.maximum(above_ceiling(means), _MIN_RANGE)
            return shares

        if (estimate(above_ceiling).estimate or 0.0) > _MIN_RANGE:
            found["share_recovered"] = estimate(share)
    return found


def make_bootstrap(values_CK: np.ndarray, config: EvaluateConfig) -> Bootstrap:
    """Draw the bootstrap samples of `values_CK` that the config asks for."""
    draw = Resampling(samples=config.bootstrap, seed=config.seed, min_controls=config.min_controls)
    return Bootstrap(values_CK, draw)


def stack_control_means(values: Mapping[str, np.ndarray], controls: np.ndarray) -> np.ndarray:
    """Average each column over controls and stack them as [C, K], one column per name."""
    return np.stack([average_by_control(values[name], controls)[1] for name in values], 1)


def column_mean(names: Sequence[str], name: str) -> Statistic:
    """Return the statistic that is the mean of one column."""
    return lambda means: means[..., names.index(name)]


def lowest_minus(names: Sequence[str], rivals: Sequence[str], name: str) -> LowestMean:
    """Return the lowest mean of the rivals, chosen anew in each sample, less that of `name`."""
    return LowestMean(tuple(names.index(rival) for rival in rivals), names.index(name))


def find_lowest(values_CK: np.ndarray, names: Sequence[str], rivals: Sequence[str]) -> str | None:
    """Find the rival with the lowest mean; None where there are no controls."""
    if not len(values_CK):
        return None
    return min(rivals, key=lambda name: float(values_CK[:, names.index(name)].mean()))
