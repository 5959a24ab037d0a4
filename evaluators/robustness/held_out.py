"""The cost of categories that training never saw: the splits `test` and `test_ood`, compared.

Their controls are others, so the drop is not paired: each split is resampled independently.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluators.measure.metrics import HeldOutMetrics, SplitEstimates
from evaluators.robustness.config import RobustnessConfig
from evaluators.stats.estimates import Resampling, mean_estimate, unpaired_difference


def compare_held_out(
    losses: Mapping[tuple[str, str], Mapping[str, np.ndarray]], config: RobustnessConfig
) -> dict[str, HeldOutMetrics]:
    """Compare losses in splits `test` and `test_ood`, by view, where both have controls.

    Args:
        losses: by split and view, [C] loss of each control given `right` and given `none`.
        config: bootstrap settings.
    """
    out = {}
    for view in dict.fromkeys(view for _, view in losses):
        test, test_ood = losses.get(("test", view)), losses.get(("test_ood", view))
        if test is None or test_ood is None:
            continue
        if len(test["right"]) and len(test_ood["right"]):
            out[view] = HeldOutMetrics(
                right=_compare(test["right"], test_ood["right"], config, harm=1),
                none_minus_right=_compare(
                    test["none"] - test["right"],
                    test_ood["none"] - test_ood["right"],
                    config,
                    harm=-1,
                ),
            )
    return out


def _compare(
    test_C: np.ndarray, test_ood_C: np.ndarray, config: RobustnessConfig, *, harm: int
) -> SplitEstimates:
    """Estimate both means and the drop; `harm` is the sign of a change for the worse."""
    draw = Resampling(samples=config.bootstrap, seed=config.seed, min_controls=config.min_controls)
    return SplitEstimates(
        test=mean_estimate(test_C, draw),
        test_ood=mean_estimate(test_ood_C, draw),
        drop=unpaired_difference(harm * test_C, harm * test_ood_C, draw),
    )
