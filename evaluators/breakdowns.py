"""The panel again, of parts of the controls: by kind, by category, and by type of question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.panel import panel

WHOLE = "all"
"""Name of the group of everything."""
UNSTATED = "unstated"
"""Type of a question whose source does not say."""


def breakdowns(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    labels: Mapping[str, Sequence[str]],
    config: EvaluateConfig,
) -> dict[str, dict[str, Any]]:
    """Panels of one split and view by group.

    Args:
        losses: [N] answer loss of each question by condition.
        controls: [N] control of each question.
        labels: grouping (`kind`, `category`, `type`) to the [N] names of each question's group.

    Returns:
        {"kind=persona": panel, ...}; a group of fewer controls than an interval needs has none.
    """
    out = {}
    for grouping, names in labels.items():
        of = np.array(names)
        for name in sorted(set(names)):
            own = of == name
            part = {condition: values[own] for condition, values in losses.items()}
            out[f"{grouping}={name}"] = panel(part, controls[own], config)
    return out
