"""What a decoder reads as Markdown: losses, gains, and identification where it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.records.estimate import Estimate
from core.text.text_tables import markdown
from core.text.wording import ABSENT
from evaluators.answers.answer_quality import AGAINST
from evaluators.measure.metrics import SliceMetrics
from pipelines.reports.run.evaluation import ReadingResult, readings_of

GAINS = (
    *("hidden_gain", "below_rivals", "share_recovered"),
    *("below_untrained", "grounded_gain", "information_gain"),
)
"""Fields of `SliceMetrics`."""
_IDENTIFIED = ("chance", "hidden_gain", "grounded_gain", "information_gain")


def reading_tables(reading: Mapping[str, Any]) -> str:
    """Write the tables of a tree `reading` of `run --json`, with 95 % intervals over controls.

    Losses and their gains are in nats per token, identification in shares of items.

    Raises:
        pydantic.ValidationError: it is no such tree.
    """
    readings = readings_of(reading)
    conditions = list(dict.fromkeys(name for one in readings for name in one.metrics.answer_loss))
    head = ["split", "view", "n", *conditions, "untrained right", "untrained other"]
    losses = [
        [
            one.split,
            one.view,
            str(one.metrics.grounded_gain.n),
            *(_text(one.metrics.answer_loss.get(name)) for name in conditions),
            *(_text(one.metrics.untrained.get(name)) for name in ("right", "other")),
        ]
        for one in readings
    ]
    gains = [
        [one.split, one.view, *gain_texts(one.metrics), one.metrics.best_uninformed or ABSENT]
        for one in readings
    ]
    names = ["split", "view", *(name.replace("_", " ") for name in GAINS), "best uninformed"]
    more = [*_identification(readings), *_generic(readings)]
    return "\n\n".join(
        [
            "Answer loss in nats per token, by condition (n counts controls):",
            markdown(head, losses),
            "Differences of these losses, in nats per token:",
            markdown(names, gains),
            *more,
        ]
    )


def gain_texts(metrics: SliceMetrics) -> list[str]:
    """Format each of `GAINS` with its interval."""
    return [_text(getattr(metrics, name)) for name in GAINS]


def _identification(readings: Sequence[ReadingResult]) -> list[str]:
    """Write the table of identification; none where it was not measured."""
    measured = [
        (one.split, one.view, one.metrics.identification)
        for one in readings
        if one.metrics.identification is not None and one.metrics.identification.asked
    ]
    if not measured:
        return []
    given = list(dict.fromkeys(name for _, _, found in measured for name in found.accuracy))
    head = ["split", "view", "items", "n", *given]
    lines = [
        [
            split,
            view,
            str(found.asked),
            str(found.chance.n),
            *(_text(found.accuracy.get(name)) for name in given),
            *(_text(getattr(found, name)) for name in _IDENTIFIED),
        ]
        for split, view, found in measured
    ]
    names = (name.replace("_", " ") for name in _IDENTIFIED)
    return [
        "Identification: share of items whose gold answer is the likeliest:",
        markdown([*head, *names], lines),
    ]


def _generic(readings: Sequence[ReadingResult]) -> list[str]:
    """Write the table of generic answers; none where no answers were written."""
    measured = [(one, one.metrics.generic) for one in readings if one.metrics.generic]
    head = ["split", "view", "n", *(f"generic: same for {name}" for name in AGAINST)]
    lines = [
        [
            one.split,
            one.view,
            str(max(own.n for own in found.values())),
            *(_text(found.get(name)) for name in AGAINST),
        ]
        for one, found in measured
    ]
    title = (
        "Share of generic written answers, word for word the same without the row's "
        "own activations:"
    )
    return [title, markdown(head, lines)] if lines else []


def _text(estimate: Estimate | None) -> str:
    return ABSENT if estimate is None else str(estimate)
