"""The numbers again, of parts of the controls: the panel by kind, by category and by type of
question; written answers and identification, which are about fewer of them, by kind and by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.answers.answer_quality import answer_quality
from evaluators.config import EvaluateConfig
from evaluators.identification.choice_items import ChoiceItem
from evaluators.identification.identify import Losses, identification
from evaluators.measure.panel import panel

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


def answers_by_group(
    answers: Sequence[Mapping[str, Any]], config: EvaluateConfig
) -> dict[str, dict[str, Any]]:
    """Quality of the written answers of one split and view by group.

    Args:
        answers: rows of answers.parquet.

    Returns:
        {"kind=persona": {"answers": as `answer_quality` gives it}, ...}
    """
    labels = [(own["kind"], own["type"]) for own in answers]
    return {
        group: {"answers": answer_quality([answers[i] for i in chosen], config)}
        for group, chosen in _groups(labels).items()
    }


def items_by_group(
    items: Sequence[ChoiceItem],
    losses: Mapping[str, Losses],
    controls: Sequence[str],
    kinds: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, dict[str, Any]]:
    """Identification of one split and view by group.

    Args:
        losses, controls: as for `identification`.
        kinds: of each item's control.

    Returns:
        {"kind=persona": {"identification": as `identification` gives it}, ...}
    """
    labels = [(kind, item.question.type) for kind, item in zip(kinds, items, strict=True)]
    return {
        group: {
            "identification": identification(
                [items[i] for i in chosen],
                {name: [each[i] for i in chosen] for name, each in losses.items()},
                [controls[i] for i in chosen],
                0,
                config,
            )
        }
        for group, chosen in _groups(labels).items()
    }


def _groups(labels: Sequence[tuple[str, str | None]]) -> dict[str, list[int]]:
    """Places of each kind and of each type of question, by the group's name."""
    out: dict[str, list[int]] = {}
    for i, (kind, of_type) in enumerate(labels):
        for group in (f"kind={kind}", f"type={of_type or UNSTATED}"):
            out.setdefault(group, []).append(i)
    return dict(sorted(out.items()))
