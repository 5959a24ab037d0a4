"""What categories that training never saw cost the decoder: two splits, compared.

Their controls are others, so the drop is not paired: each split is drawn by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evaluators.measure.panel import sampler
from evaluators.robustness.config import RobustnessConfig
from evaluators.stats.estimates import Estimate
from evaluators.stats.intervals import percentile_interval


def held_out(
    losses: Mapping[tuple[str, str], Mapping[str, np.ndarray]], config: RobustnessConfig
) -> dict[str, Any]:
    """Loss and gain in splits `test` and `test_ood`, by view, where both have controls.

    Args:
        losses: by split and view, [C] loss of each control given `right` and given `none`.
    """
    out = {}
    for view in dict.fromkeys(view for _, view in losses):
        known, new = losses.get(("test", view)), losses.get(("test_ood", view))
        if known is not None and new is not None and len(known["right"]) and len(new["right"]):
            out[view] = {
                "right": _apart(known["right"], new["right"], config, lambda x, y: y - x),
                "gain": _apart(
                    known["none"] - known["right"],
                    new["none"] - new["right"],
                    config,
                    lambda x, y: x - y,
                ),
            }
    return out


def _apart(
    known_C: np.ndarray,
    new_C: np.ndarray,
    config: RobustnessConfig,
    drop: Callable[[Any, Any], Any],
) -> dict[str, Estimate]:
    """Means of two sets of controls, and the drop between them; each set is drawn by itself."""
    each = [sampler(own[:, None], config.rows)(lambda m: m[..., 0]) for own in (known_C, new_C)]
    n = min(len(known_C), len(new_C))
    estimate = float(drop(known_C.mean(), new_C.mean()))
    low = high = None
    if n >= config.min_controls:
        draw = np.random.default_rng(config.seed)
        drawn = [
            own[draw.integers(0, len(own), (config.bootstrap, len(own)))].mean(1)
            for own in (known_C, new_C)
        ]
        low, high = percentile_interval(estimate, drop(*drawn), n)
    return {
        "test": each[0],
        "test_ood": each[1],
        "drop": {"estimate": estimate, "low": low, "high": high, "n": n},
    }
