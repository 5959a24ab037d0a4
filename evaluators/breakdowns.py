"""The metrics of groups of controls or questions.

The panel is broken down by kind, by category and by type of question; written answers and
identification, which are about fewer controls, by kind and by type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.answers.answer_quality import measure_answers
from evaluators.config import EvaluateConfig
from evaluators.identification.choice_items import ChoiceItem
from evaluators.identification.identify import OptionLosses, measure_identification
from evaluators.measure.metrics import IdentificationMetrics, PairedEstimates, PanelMetrics
from evaluators.measure.panel import measure_panel

UNSTATED = "unstated"
"""Type of a question whose source does not say."""


def panel_by_group(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    labels: Mapping[str, Sequence[str]],
    config: EvaluateConfig,
) -> dict[str, PanelMetrics]:
    """Measure the panel of each group of one split and view.

    Args:
        losses: [N] answer loss of each question by condition.
        controls: [N] control of each question.
        labels: grouping (`kind`, `category`, `type`) to the [N] names of each question's group.
        config: bootstrap settings; a group of too few controls has no intervals.

    Returns:
        Panel by group, such as `kind=persona`.
    """
    out = {}
    for grouping, names in labels.items():
        group_N = np.array(names)
        for name in sorted(set(names)):
            chosen = group_N == name
            part = {condition: values[chosen] for condition, values in losses.items()}
            out[f"{grouping}={name}"] = measure_panel(part, controls[chosen], config)
    return out


def answers_by_group(
    answers: Sequence[Mapping[str, Any]], config: EvaluateConfig
) -> dict[str, dict[str, PairedEstimates]]:
    """Measure the written answers of each group of one split and view.

    Args:
        answers: rows of answers.parquet.
        config: bootstrap settings.

    Returns:
        Metrics by group, such as `kind=persona`.
    """
    labels = [(answer["kind"], answer["type"]) for answer in answers]
    return {
        group: measure_answers([answers[i] for i in chosen], config)
        for group, chosen in _groups(labels).items()
    }


def items_by_group(
    items: Sequence[ChoiceItem],
    losses: Mapping[str, OptionLosses],
    controls: Sequence[str],
    kinds: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, IdentificationMetrics]:
    """Measure the identification of each group of one split and view.

    Args:
        items: of the split and view.
        losses: as for `measure_identification`.
        controls: of each item.
        kinds: of each item's control.
        config: bootstrap settings.

    Returns:
        Identification by group, such as `kind=persona`.
    """
    labels = [(kind, item.question.type) for kind, item in zip(kinds, items, strict=True)]
    return {
        group: measure_identification(
            {name: [each[i] for i in chosen] for name, each in losses.items()},
            [controls[i] for i in chosen],
            0,
            config,
        )
        for group, chosen in _groups(labels).items()
    }


def _groups(labels: Sequence[tuple[str, str | None]]) -> dict[str, list[int]]:
    """Find the members of each kind and of each type of question, by the group's name."""
    out: dict[str, list[int]] = {}
    for i, (kind, of_type) in enumerate(labels):
        for group in (f"kind={kind}", f"type={of_type or UNSTATED}"):
            out.setdefault(group, []).append(i)
    return dict(sorted(out.items()))
