"""Identification by likelihood: of several answers, does the decoder find the gold one?

What chance is, no count of options says: answers differ in how likely they are by themselves. It
is measured, on the same items, given activations that tell nothing about the row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from decoder.model import Decoder
from decoder.reading import Reading
from evaluators.config import EvaluateConfig
from evaluators.identification.calibration import (
    calibration_error,
    confidence,
    error_if_calibrated,
    reliability,
)
from evaluators.identification.choice_items import ChoiceItem
from evaluators.measure.losses import compute_question_losses
from evaluators.measure.panel import UNINFORMED, columns, least_above, sampler
from evaluators.stats.estimates import Estimate, Least, Statistic
from trainers.rows import Row

CONDITIONS = ("right", "swapped", "other", "none")
"""What is given: the row's own activations, and those by which chance is measured: `swapped` in
masked views and `other` where nothing is hidden, `none`, and the trained baselines that do not see
what is hidden."""
# rows share their prefix, so a batch holds few of them and many options
_ROWS = 4

Losses = list[list[float]]


def option_losses(
    decoder: Decoder, rows: Sequence[Row], items: Sequence[ChoiceItem], readings: Sequence[Reading]
) -> Losses:
    """Answer loss of each option of each item, nats a token, over one prefix a row.

    Args:
        readings: one a row.
    """
    of_row: dict[int, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        of_row[item.row].append(i)
    asked = [
        Row(
            rows[r].conversation,
            tuple(
                replace(items[i].question, answer=option)
                for i in own
                for option in items[i].options
            ),
        )
        for r, own in of_row.items()
    ]
    found = compute_question_losses(decoder, asked, [readings[r] for r in of_row], batch=_ROWS)
    out: Losses = [[] for _ in items]
    for own, losses in zip(of_row.values(), found, strict=True):
        rest = iter(losses)
        for i in own:
            out[i] = [next(rest) for _ in items[i].options]
    return out


def identification(
    items: Sequence[ChoiceItem],
    losses: Mapping[str, Losses],
    controls: Sequence[str],
    without: int,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Accuracy, chance, both gains, and calibration.

    Args:
        losses: of each item's options, gold first, by condition.
        controls: control of each item.
        without: questions that have no distractor.

    Returns:
        {"accuracy": {condition: Estimate}, "chance", "hidden_gain" or, where nothing is hidden,
        "grounded_gain", "information_gain",
        "calibration_error", "error_if_calibrated": Estimate, "reliability": bins of `right`,
        "items": {"asked", "left_out": count}}; gains are in accuracy,
        `right` less the others.
    """
    names = list(losses)
    of = np.array(controls)
    correct = {name: np.array([_found(own) for own in losses[name]]) for name in names}
    # errors, as losses are: the best rival has the least
    estimate = sampler(columns({name: 1 - correct[name] for name in names}, of), config)
    rivals = [name for name in (*UNINFORMED, "swapped", "visible_text") if name in names]
    sure = confidence(losses["right"])
    return {
        "accuracy": {name: estimate(_share(k)) for k, name in enumerate(names)},
        "chance": _complement(estimate(Least(tuple(names.index(name) for name in rivals)))),
        **{
            gain: estimate(least_above(names, [against], "right"))
            for gain, against in (("hidden_gain", "swapped"), ("grounded_gain", "other"))
            if against in names
        },
        "information_gain": estimate(least_above(names, rivals, "right")),
        "calibration_error": calibration_error(sure, correct["right"], of, config),
        "error_if_calibrated": error_if_calibrated(sure, of, config),
        "reliability": reliability(sure, correct["right"]),
        "items": {
            "asked": len(items),
            "left_out": without,
        },
    }


def item_rows(
    items: Sequence[ChoiceItem], losses: Mapping[str, Losses], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """One row an item and condition, for items.parquet, without split and view."""
    out = []
    for name, each in losses.items():
        sure = confidence(each)
        for item, own, certainty in zip(items, each, sure, strict=True):
            conversation = rows[item.row].conversation
            out.append(
                {
                    "kind": conversation.kind,
                    "category": conversation.category,
                    "type": item.question.type,
                    "control_id": conversation.control_id,
                    "example_id": conversation.example_id,
                    "question": item.question.question,
                    "options": list(item.options),
                    "condition": name,
                    "losses": own,
                    "correct": _found(own),
                    "confidence": float(certainty),
                }
            )
    return out


def _complement(errors: Estimate) -> Estimate:
    """The share of what was found, from that of what was not."""
    low, high = errors["high"], errors["low"]
    return {
        "estimate": None if errors["estimate"] is None else 1 - errors["estimate"],
        "low": None if low is None else 1 - low,
        "high": None if high is None else 1 - high,
        "n": errors["n"],
    }


def _share(column: int) -> Statistic:
    """Accuracy, from the column of errors."""
    return lambda means: 1 - means[..., column]


def _found(losses: list[float]) -> float:
    """1 where gold, the first, is the likeliest; shared where others are as likely."""
    least = min(losses)
    return 1 / losses.count(least) if losses[0] == least else 0.0
