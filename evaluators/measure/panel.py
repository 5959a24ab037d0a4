"""The panel: answer losses by condition, gains, and what was left out, for one split and view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.stats.estimates import Bootstrap, Estimate, Least, Statistic, over_controls

# conditions that tell the decoder nothing about the row at hand; the information gain is taken
# over the best of them. `noise` and `wrong_layer` are none: no decoder was ever given such, so a
# loss there says nothing about guessing. `prior` is a decoder that was trained to guess
UNINFORMED = ("other", "mean", "none", "prior")
UNTRAINED = ("untrained_right", "untrained_other")
# decoders that were trained with the same rows and steps and do not see what is hidden: a decoder
# that reads is better than both
RIVALS = ("prior", "visible_text")
CEILING = "text"
_LEAST_ROOM = 0.02
"""Nats a token between floor and ceiling under which no share of it is told."""


def panel(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    config: EvaluateConfig,
    answer_tokens: np.ndarray | None = None,
) -> dict[str, Any]:
    """Estimates with intervals over controls.

    Args:
        losses: [N] answer loss of each question by condition; all over the same questions.
        controls: [N] control of each question; where N is 0 every estimate is None, with n 0.
        answer_tokens: [N] tokens of each answer, for the hidden gain of a whole answer.

    Returns:
        {"answer_loss": {condition: Estimate}, "untrained": {"right", "other"}, "grounded_gain",
        "information_gain", "below_untrained", "best_uninformed"}; nats a token. With `swapped`
        also "hidden_gain" and "hidden_gain_per_answer" (nats of a whole answer); with `prior` or
        `visible_text` "below_rivals", the best of them less `right`; with `text` beside them
        "share_recovered", (best rival - right) / (best rival - text).
        "best_uninformed" names the rival of the information gain, or is None where N is 0.
    """
    names = list(losses)
    values_CK = columns(losses, controls)
    estimate = sampler(values_CK, config)
    uninformed = [name for name in UNINFORMED if name in names]
    return {
        **_hidden(losses, controls, config, answer_tokens),
        **_against_rivals(names, estimate),
        "answer_loss": {
            name: estimate(mean(names, name)) for name in names if name not in UNTRAINED
        },
        "untrained": {
            name.removeprefix("untrained_"): estimate(mean(names, name)) for name in UNTRAINED
        },
        "grounded_gain": estimate(least_above(names, ["other"], "right")),
        "information_gain": estimate(least_above(names, uninformed, "right")),
        "below_untrained": estimate(least_above(names, ["untrained_right"], "right")),
        "best_uninformed": best(values_CK, names, uninformed),
    }


def _hidden(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    config: EvaluateConfig,
    answer_tokens: np.ndarray | None,
) -> dict[str, Estimate]:
    """Estimate the hidden gain, swapped - right, in nats a token and in nats an answer."""
    if "swapped" not in losses:
        return {}
    names = ["swapped", "right"]
    gain = least_above(names, ["swapped"], "right")
    pair = {name: losses[name] for name in names}
    found = {"hidden_gain": sampler(columns(pair, controls), config)(gain)}
    if answer_tokens is not None:
        whole = {name: values * answer_tokens for name, values in pair.items()}
        found["hidden_gain_per_answer"] = sampler(columns(whole, controls), config)(gain)
    if "shifted_positions" in losses:
        moved = {name: losses[name] for name in ("shifted_positions", "right")}
        shift = least_above(list(moved), ["shifted_positions"], "right")
        found["position_effect"] = sampler(columns(moved, controls), config)(shift)
    return found


def _against_rivals(names: Sequence[str], estimate: Bootstrap) -> dict[str, Estimate]:
    """Compare `right` with the trained decoders that do not see what is hidden."""
    rivals = [name for name in RIVALS if name in names]
    if not rivals:
        return {}
    found = {"below_rivals": estimate(least_above(names, rivals, "right"))}
    if CEILING in names:
        places = [names.index(name) for name in rivals]
        right, ceiling = names.index("right"), names.index(CEILING)

        def room(means: np.ndarray) -> np.ndarray:
            least: np.ndarray = means[..., places].min(-1) - means[..., ceiling]
            return least

        def share(means: np.ndarray) -> np.ndarray:
            recovered: np.ndarray = means[..., places].min(-1) - means[..., right]
            return recovered / np.maximum(room(means), _LEAST_ROOM)

        if (estimate(room)["estimate"] or 0.0) > _LEAST_ROOM:
            found["share_recovered"] = estimate(share)
    return found


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
