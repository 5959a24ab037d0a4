"""Identification by likelihood: does the decoder find the gold answer among several?

The number of options does not say what chance is: answers differ in how likely they are by
themselves. Chance is measured on the same items, with inputs that tell nothing about the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.records.estimate import Estimate
from evaluators.config import EvaluateConfig
from evaluators.measure.metrics import IdentificationMetrics
from evaluators.measure.panel import UNINFORMED, lowest_minus, make_bootstrap, stack_control_means
from evaluators.stats.estimates import LowestMean, Statistic

if TYPE_CHECKING:
    from evaluators.identification.choice_items import ChoiceItem
    from trainers.data.rows import Row

CONDITIONS = ("right", "swapped", "other", "none")
"""What is given: the row's own activations, and those by which chance is measured: `swapped` in
masked views and `other` where nothing is hidden, `none`, and the trained baselines that do not see
what is hidden."""
OptionLosses = list[list[float]]
"""Of each item the answer loss of its options, gold first."""


def measure_identification(
    losses: Mapping[str, OptionLosses],
    controls: Sequence[str],
    left_out: int,
    config: EvaluateConfig,
) -> IdentificationMetrics:
    """Estimate accuracy, chance and gains.

    Args:
        losses: by condition.
        controls: control of each item.
        left_out: questions that make no item.
        config: bootstrap settings.
    """
    names = list(losses)
    # errors, as losses are: the best rival has the lowest
    errors = {name: np.array([1 - _score(item) for item in losses[name]]) for name in names}
    estimate = make_bootstrap(stack_control_means(errors, np.array(controls)), config)
    rivals = [name for name in (*UNINFORMED, "swapped", "visible_text") if name in names]
    gains = {
        gain: estimate(lowest_minus(names, [against], "right"))
        for gain, against in (("hidden_gain", "swapped"), ("grounded_gain", "other"))
        if against in names
    }
    lowest_error = LowestMean(tuple(names.index(name) for name in rivals))
    return IdentificationMetrics(
        accuracy={name: estimate(_accuracy(column)) for column, name in enumerate(names)},
        chance=_complement(estimate(lowest_error)),
        information_gain=estimate(lowest_minus(names, rivals, "right")),
        asked=len(controls),
        left_out=left_out,
        **gains,
    )


def choice_item_rows(
    items: Sequence[ChoiceItem], losses: Mapping[str, OptionLosses], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Make the rows of items.parquet, one per item and condition, without split and view."""
    return [
        {
            "kind": rows[item.row].conversation.kind,
            "category": rows[item.row].conversation.category,
            "type": item.question.type,
            "control_id": rows[item.row].conversation.control_id,
            "example_id": rows[item.row].example_id,
            "question": item.question.question,
            "options": list(item.options),
            "condition": name,
            "losses": own,
            "correct": _score(own),
        }
        for name, each in losses.items()
        for item, own in zip(items, each, strict=True)
    ]


def _complement(errors: Estimate) -> Estimate:
    """Turn an estimated share of errors into one of successes."""
    return Estimate(
        estimate=None if errors.estimate is None else 1 - errors.estimate,
        low=None if errors.high is None else 1 - errors.high,
        high=None if errors.low is None else 1 - errors.low,
        n=errors.n,
    )


def _accuracy(column: int) -> Statistic:
    """Return the statistic that is the accuracy of a column of errors."""
    return lambda means: 1 - means[..., column]


def _score(losses: Sequence[float]) -> float:
    """Score an item: 1 where gold, the first, is likeliest, shared where others are as likely."""
    lowest = min(losses)
    return 1 / list(losses).count(lowest) if losses[0] == lowest else 0.0
