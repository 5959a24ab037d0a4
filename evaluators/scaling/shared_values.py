"""What several evaluations measured of the same questions, by control.

The trainings of a sweep are compared on the questions that all of them were asked, and on the items
of identification with the same options: a difference is then never one of the questions. Targets
that wrote completions of their own are compared on the same questions about the same controls.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import DataError
from core.records.tables import SPLITS, VIEWS
from core.text.wording import sort_pairs
from evaluators.comparison.shared_questions import (
    Key,
    Slice,
    Values,
    control_means,
    read_items,
    read_losses,
    shared_conditions,
    shared_keys,
)
from evaluators.control.result_files import REPLIES_FILE
from evaluators.measure.result_files import read_rows
from evaluators.stats.estimates import average_by_control
from evaluators.tasks.result_files import TASK_ANSWERS_FILE


@dataclass(frozen=True, slots=True)
class ScalingMetric:
    """A number that is drawn along an axis.

    Attributes:
        name: of its files.
        title: what a reader sees.
        unit: of its values.
        is_loss: whether less is better, and it cannot fall below zero.
    """

    name: str
    title: str
    unit: str
    is_loss: bool = False


METRICS = (
    ScalingMetric("right", "Answer loss", "nats per token", is_loss=True),
    ScalingMetric("hidden_gain", "Hidden gain", "nats per token"),
    ScalingMetric("grounded_gain", "Grounded gain", "nats per token"),
    ScalingMetric("identified", "Closed accuracy", "share of items"),
    ScalingMetric("task_accuracy", "Task accuracy", "share of test rows"),
    ScalingMetric("adherence", "Adherence by code", "score less the unsteered target's"),
    ScalingMetric("adherence_likelihood", "Adherence by likelihood", "nats per token"),
)
"""What is drawn, in this order: `hidden_gain` (swapped − right) in masked views, `grounded_gain`
(other − right) where nothing is hidden, `identified` where identification was asked for,
`task_accuracy` of reading tasks, and both kinds of adherence of steered targets."""
DECODER = "lit"
"""The predictor of reading tasks that is the trained decoder."""


@dataclass(frozen=True, slots=True)
class SharedValues:
    """One split and view.

    Attributes:
        split: the split.
        view: the view.
        controls: that all evaluations share, sorted.
        questions: that all evaluations share.
        values: by metric [P, C], a row for each evaluation and a column for each control; of
            `identified` the controls that have items alone.
    """

    split: str
    view: str
    controls: tuple[str, ...]
    questions: int
    values: Mapping[str, np.ndarray]


def read_shared_values(folders: Sequence[Path]) -> list[SharedValues]:
    """Read the values of several evaluations on the questions that all of them were asked.

    Args:
        folders: the output of each evaluation.

    Raises:
        DataError: they have no question in common.
    """
    losses = [read_losses(folder) for folder in folders]
    items = [read_items(folder) for folder in folders]
    found = [
        one
        for split, view in sort_pairs(set(losses[0]).intersection(*losses[1:]), SPLITS, VIEWS)
        if (one := _share(split, view, losses, items)) is not None
    ]
    if not found:
        raise DataError(
            f"sweep: {len(folders)} evaluations have no question in common; expected the same "
            "data, splits and views."
        )
    return found


def read_shared_tasks(folders: Sequence[Path]) -> list[SharedValues]:
    """Read how often the decoders answer the rows of reading tasks that all of them were given.

    A row with options counts where the right one was chosen, any other where the answer names the
    object. A task stands in the place of a view, and its subjects in the place of controls.

    Args:
        folders: the output of each step `tasks`.
    """
    tables: list[dict[str, dict[tuple[str, str], float]]] = []
    for folder in folders:
        found: dict[str, dict[tuple[str, str], float]] = {}
        for row in read_rows(folder / TASK_ANSWERS_FILE):
            if row["predictor"] == DECODER:
                value = row["contained"] if row["chosen"] is None else row["chosen"]
                if value is not None:
                    found.setdefault(row["task"], {})[row["group"], row["row_id"]] = value
        tables.append(found)
    out = []
    for task in sorted(set(tables[0]).intersection(*tables[1:])):
        own = [table[task] for table in tables]
        keys = sorted(set(own[0]).intersection(*own[1:]))
        if keys:
            groups = np.array([group for group, _ in keys])
            means = [average_by_control(np.array([one[k] for k in keys]), groups) for one in own]
            names = tuple(map(str, means[0][0]))
            values = {"task_accuracy": np.stack([mean for _, mean in means])}
            out.append(SharedValues("test", task, names, len(keys), values))
    return out


def read_shared_steering(folders: Sequence[Path]) -> list[SharedValues]:
    """Read how far steered targets keep to the controls on the prompts that all of them got.

    A control with its method stands in the place of a view, and its prompts in that of controls;
    the unsteered target's values are taken off.

    Args:
        folders: the output of each step `control`.
    """
    tables: list[dict[str, dict[str, tuple[float | None, float]]]] = []
    for folder in folders:
        rows = read_rows(folder / REPLIES_FILE)
        plain = {(row["control"], row["prompt"]): row for row in rows if row["method"] == "none"}
        found: dict[str, dict[str, tuple[float | None, float]]] = {}
        for row in rows:
            if row["method"] != "none":
                base = plain[row["control"], row["prompt"]]
                score = None if row["adherence"] is None else row["adherence"] - base["adherence"]
                own = found.setdefault(f"{row['control']} by {row['method']}", {})
                own[row["prompt"]] = (score, row["likelihood"] - base["likelihood"])
        tables.append(found)
    out = []
    for name in sorted(set(tables[0]).intersection(*tables[1:])):
        own_tables = [table[name] for table in tables]
        prompts = sorted(set(own_tables[0]).intersection(*own_tables[1:]))
        if not prompts:
            continue
        pairs = [[table[prompt] for prompt in prompts] for table in own_tables]
        values = {"adherence_likelihood": np.array([[gain for _, gain in own] for own in pairs])}
        if all(score is not None for own in pairs for score, _ in own):
            values["adherence"] = np.array([[score for score, _ in own] for own in pairs], float)
        out.append(SharedValues("test", name, tuple(prompts), len(prompts), values))
    return out


def _share(
    split: str,
    view: str,
    losses: Sequence[Mapping[Slice, Values]],
    items: Sequence[Mapping[Slice, Values]],
) -> SharedValues | None:
    tables = [one[split, view] for one in losses]
    chosen = [one.get((split, view), {}) for one in items]
    if not shared_keys(tables):
        tables, chosen = _average_by_question(tables), _average_by_question(chosen)
    keys = shared_keys(tables)
    if not keys:
        return None
    conditions = shared_conditions(tables, keys)
    means = np.stack([control_means(table, keys, conditions) for table in tables])
    values = dict(zip(conditions, np.moveaxis(means, -1, 0), strict=True))
    rights = values["right"]
    found = {"right": rights}
    if "swapped" in values:
        found["hidden_gain"] = values["swapped"] - rights
    elif "other" in values:
        found["grounded_gain"] = values["other"] - rights
    if shared := shared_keys(chosen):
        found["identified"] = np.stack(
            [control_means(table, shared, ["right"])[:, 0] for table in chosen]
        )
    controls = tuple(sorted({key[0] for key in keys}))
    return SharedValues(split, view, controls, len(keys), found)


def _average_by_question(tables: Sequence[Values]) -> list[Values]:
    """Average over the examples of each control and question, where tables share no example.

    Completions are the target's own: another target's rows have other ids, and their items other
    options, as many.
    """
    merged: list[Values] = []
    for table in tables:
        grouped: dict[Key, list[Mapping[str, float]]] = {}
        for (control, _example, question, *_options), values in table.items():
            grouped.setdefault((control, question), []).append(values)
        merged.append({key: _mean(found) for key, found in grouped.items()})
    return merged


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(one[name] for one in found) for name in found[0]}
