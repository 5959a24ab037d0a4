"""The panel: answer losses by condition, gains, and what was left out, for one split and view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.statistics import bootstrap, over_controls

# conditions that tell the decoder nothing about the row at hand; the information gain is taken
# over the best of them
UNINFORMED = ("other", "mean", "none")
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
    columns = [over_controls(losses[name], controls)[1] for name in names]
    values_CK = np.stack(columns, 1)

    def estimate(statistic: Any) -> Any:
        return bootstrap(
            values_CK,
            statistic,
            samples=config.bootstrap,
            seed=config.seed,
            least=config.min_controls,
        )

    def mean(name: str) -> Any:
        return estimate(lambda means: means[..., names.index(name)])

    def difference(first: Sequence[str], second: str) -> Any:
        own = [names.index(name) for name in first]
        return estimate(lambda means: means[..., own].min(-1) - means[..., names.index(second)])

    rivals = [name for name in UNINFORMED if name in names]
    best = None
    if len(values_CK):
        best = min(rivals, key=lambda name: float(values_CK[:, names.index(name)].mean()))
    return {
        "answer_loss": {name: mean(name) for name in names if name not in UNTRAINED},
        "untrained": {name.removeprefix("untrained_"): mean(name) for name in UNTRAINED},
        "grounded_gain": difference(["other"], "right"),
        "information_gain": difference(rivals, "right"),
        "below_untrained": difference(["untrained_right"], "right"),
        "best_uninformed": best,
    }
