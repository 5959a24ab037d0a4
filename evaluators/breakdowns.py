"""The metrics of groups of controls or questions.

A group is a kind, a category, a type of question, or one question: the mean over all of them may
hide that one attribute of a control is read and another is not. Groups are measured from the files
of an evaluation, without another forward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from evaluators.answers.answer_quality import measure_answers
from evaluators.config import EvaluateConfig
from evaluators.identification.identify import OptionLosses, measure_identification
from evaluators.measure.metrics import IdentificationMetrics, PairedEstimates, PanelMetrics
from evaluators.measure.panel import measure_panel

UNSTATED = "unstated"
"""Type of a question whose source does not say."""
LEAST_ASKED = 4
"""Controls that a question must have been asked about to be a group of its own."""

_Row = Mapping[str, Any]
_Labels = Mapping[str, Sequence[str | None]]


def label_groups(asked: Sequence[_Row]) -> dict[str, list[str | None]]:
    """Name the groups of each question.

    Args:
        asked: the [N] questions, each with `kind`, `category`, `type`, `question`, `control_id`.

    Returns:
        By grouping (`kind`, `category`, `type`, `question`) the [N] names of each question's group;
        None where a question was asked about too few controls to be one.
    """
    controls: dict[str, set[str]] = defaultdict(set)
    for own in asked:
        controls[own["question"]].add(own["control_id"])
    return {
        "kind": [own["kind"] for own in asked],
        "category": [f"{own['kind']}/{own['category']}" for own in asked],
        "type": [own.get("type") or UNSTATED for own in asked],
        "question": [
            own["question"] if len(controls[own["question"]]) >= LEAST_ASKED else None
            for own in asked
        ],
    }


def group_metrics(
    losses: Iterable[_Row], items: Iterable[_Row], config: EvaluateConfig
) -> dict[str, dict[str, dict[str, PanelMetrics]]]:
    """Compute the metrics of each group of questions from the files of an evaluation.

    Args:
        losses: rows of losses.parquet.
        items: rows of items.parquet.
        config: bootstrap settings; a group of too few controls has no intervals.

    Returns:
        Panels by split, view and group, such as `question=Who speaks?`; with identification where
        there are items.
    """
    found: dict[str, dict[str, dict[str, PanelMetrics]]] = {}
    identified = _by_slice(items)
    for (split, view), conditions in _by_slice(losses).items():
        asked = conditions["right"]
        controls = np.array([row["control_id"] for row in asked])
        flat = {name: np.array([row["loss"] for row in rows]) for name, rows in conditions.items()}
        groups = panel_by_group(flat, controls, label_groups(asked), config)
        choices = identified.get((split, view))
        if choices:
            options = {
                name: [list(row["losses"]) for row in rows] for name, rows in choices.items()
            }
            for group, metrics in items_by_group(choices["right"], options, config).items():
                groups[group] = groups[group].model_copy(update={"identification": metrics})
        found.setdefault(split, {})[view] = groups
    return found


def panel_by_group(
    losses: Mapping[str, np.ndarray],
    controls: np.ndarray,
    labels: _Labels,
    config: EvaluateConfig,
) -> dict[str, PanelMetrics]:
    """Measure the panel of each group of one split and view.

    Args:
        losses: [N] answer loss of each question by condition.
        controls: [N] control of each question.
        labels: as `label_groups` names them.
        config: bootstrap settings; a group of too few controls has no intervals.

    Returns:
        Panel by group, such as `kind=persona`.
    """
    return {
        group: measure_panel(
            {condition: values[chosen] for condition, values in losses.items()},
            controls[chosen],
            config,
        )
        for group, chosen in _members(labels).items()
    }


def answers_by_group(
    answers: Sequence[_Row], config: EvaluateConfig
) -> dict[str, dict[str, PairedEstimates]]:
    """Measure the written answers of each kind and each type of question of one split and view.

    Args:
        answers: rows of answers.parquet.
        config: bootstrap settings.

    Returns:
        Metrics by group, such as `kind=persona`.
    """
    labels = label_groups(answers)
    return {
        group: measure_answers([answers[i] for i in chosen], config)
        for group, chosen in _members({name: labels[name] for name in ("kind", "type")}).items()
    }


def items_by_group(
    items: Sequence[_Row], losses: Mapping[str, OptionLosses], config: EvaluateConfig
) -> dict[str, IdentificationMetrics]:
    """Measure the identification of each group of one split and view.

    Args:
        items: of the split and view, with the fields that `label_groups` reads.
        losses: as for `measure_identification`.
        config: bootstrap settings.

    Returns:
        Identification by group, such as `kind=persona`.
    """
    return {
        group: measure_identification(
            {name: [each[i] for i in chosen] for name, each in losses.items()},
            [items[i]["control_id"] for i in chosen],
            0,
            config,
        )
        for group, chosen in _members(label_groups(items)).items()
    }


def _members(labels: _Labels) -> dict[str, np.ndarray]:
    """Find the members of each group, by the group's name."""
    out = {}
    for grouping, names in labels.items():
        for name in sorted({name for name in names if name is not None}):
            out[f"{grouping}={name}"] = np.flatnonzero([own == name for own in names])
    return out


def _by_slice(rows: Iterable[_Row]) -> dict[tuple[str, str], dict[str, list[_Row]]]:
    """Gather rows of a file by split and view, then by condition, in their order."""
    key = itemgetter("split", "view", "condition")
    out: dict[tuple[str, str], dict[str, list[_Row]]] = {}
    for (split, view, condition), own in groupby(rows, key):
        out.setdefault((split, view), {}).setdefault(condition, []).extend(own)
    return out
