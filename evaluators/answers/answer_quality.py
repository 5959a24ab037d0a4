"""The quality of written answers: each metric with the row's own activations and with another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.records.estimate import Estimate
from evaluators.answers.metrics import METRICS, Metric, WrittenAnswer
from evaluators.answers.metrics.words import answer_words
from evaluators.config import EvaluateConfig
from evaluators.measure.metrics import PairedEstimates
from evaluators.measure.panel import column_mean, make_bootstrap, stack_control_means

SIDES = ("right", "other")
AGAINST = ("swapped", "other", "none")
"""What an answer from the row's own activations may turn out to be the same as: those of the same
visible text under another control (masked views), another control's, and none at all."""


def measure_answers(
    answers: Sequence[Mapping[str, Any]],
    config: EvaluateConfig,
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, PairedEstimates]:
    """Measure every metric that applies to some of the answers.

    Args:
        answers: rows of answers.parquet, of one split and view.
        config: bootstrap settings.
        metrics: what is measured.

    Returns:
        By metric; means over questions, then over controls.
    """
    pairs = [(answer["control_id"], parse_answers(answer)) for answer in answers]
    out = {}
    for metric in metrics:
        counted = [(control, pair) for control, pair in pairs if metric.applies(pair[0])]
        if counted:
            controls = np.array([control for control, _ in counted])
            scores = {
                side: np.array([metric.score(pair[i]) for _, pair in counted])
                for i, side in enumerate(SIDES)
            }
            out[metric.name] = estimate_pair(scores, controls, config)
    return out


def measure_generic(
    answers: Sequence[Mapping[str, Any]], config: EvaluateConfig
) -> dict[str, Estimate]:
    """Estimate the share of generic answers: word for word the same without the row's own state.

    Args:
        answers: rows of answers.parquet, of one split and view.
        config: bootstrap settings.

    Returns:
        By what was given in place of the row's own activations (`AGAINST`); means over questions,
        then over controls. What was not answered is absent.
    """
    out = {}
    for name in AGAINST:
        counted = [answer for answer in answers if answer.get(name) is not None]
        if counted:
            same = np.array(
                [float(answer_words(a["right"]) == answer_words(a[name])) for a in counted]
            )
            controls = np.array([answer["control_id"] for answer in counted])
            means = stack_control_means({name: same}, controls)
            out[name] = make_bootstrap(means, config)(column_mean([name], name))
    return out


def estimate_pair(
    scores: Mapping[str, np.ndarray], controls: np.ndarray, config: EvaluateConfig
) -> PairedEstimates:
    """Estimate the means of both sides and their difference.

    Args:
        scores: [N] score of each answer by side.
        controls: [N] control of each.
        config: bootstrap settings.
    """
    estimate = make_bootstrap(stack_control_means(scores, controls), config)
    return PairedEstimates(
        right=estimate(column_mean(SIDES, "right")),
        other=estimate(column_mean(SIDES, "other")),
        difference=estimate(lambda means: means[..., 0] - means[..., 1]),
    )


def parse_answers(answer: Mapping[str, Any]) -> tuple[WrittenAnswer, WrittenAnswer]:
    """Parse a row of answers.parquet: the answers from its own activations, and another's."""
    first, second = (
        WrittenAnswer(
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
