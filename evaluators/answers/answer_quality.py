"""Written answers, measured: each metric given the row's own activations and given another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluators.answers.metrics import METRICS, Metric, Written
from evaluators.config import EvaluateConfig
from evaluators.measure.panel import columns, mean, sampler

SIDES = ("right", "other")


def answer_quality(
    answers: Sequence[Mapping[str, Any]],
    config: EvaluateConfig,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Any]:
    """Every metric that applies to some of the answers.

    Args:
        answers: rows of answers.parquet, of one split and view.

    Returns:
        {metric: {"right", "other", "gain": Estimate}}: means over questions, then over controls;
        the gain is right − other, paired by control.
    """
    both = [(answer["control_id"], written(answer)) for answer in answers]
    out = {}
    for metric in metrics:
        own = [(control, pair) for control, pair in both if metric.applies(pair[0])]
        if own:
            controls = np.array([control for control, _ in own])
            scores = {
                side: np.array([metric.score(pair[i]) for _, pair in own])
                for i, side in enumerate(SIDES)
            }
            estimate = sampler(columns(scores, controls), config)
            out[metric.name] = {
                **{side: estimate(mean(SIDES, side)) for side in SIDES},
                "gain": estimate(lambda means: means[..., 0] - means[..., 1]),
            }
    return out


def written(answer: Mapping[str, Any]) -> tuple[Written, Written]:
    """The two answers of a row of answers.parquet: from its own activations, and another's."""
    first, second = (
        Written(
            kind=answer["kind"],
            type=answer["type"],
            question=answer["question"],
            gold=answer["gold"],
            text=answer[side],
            against=answer[against],
            log_probability=answer[f"{side}_log_probability"],
            finished=answer[f"{side}_finished"],
        )
        for side, against in (SIDES, SIDES[::-1])
    )
    return first, second
