"""Tables of what a decoder reads: losses, gains, identification, generic answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.records.result_table import ResultTable
from core.text.wording import sort_known
from evaluators.answers.answer_quality import AGAINST
from pipelines.reports.run.evaluation import CONDITIONS, ReadingResult, readings_of

GAINS = (
    *("hidden_gain", "below_rivals", "share_recovered"),
    *("below_untrained", "grounded_gain", "information_gain"),
)
"""Fields of `SliceMetrics`."""
_IDENTIFIED = ("chance", "hidden_gain", "grounded_gain", "information_gain")
_UNTRAINED = ("right", "other")


def reading_tables(reading: Mapping[str, Any]) -> str:
    """Write the tables of a tree `reading` of `run --json`, with 95 % intervals over controls.

    Losses and their gains are in nats per token, identification in shares of items.

    Raises:
        pydantic.ValidationError: it is no such tree.
    """
    readings = readings_of(reading)
    titled = {
        "Answer loss in nats per token, by condition (n counts controls):": loss_table(readings),
        "Differences of these losses, in nats per token:": gain_table(readings),
        "Identification: share of items whose gold answer is the likeliest:": (
            identification_table(readings)
        ),
        "Share of generic written answers, word for word the same without the row's "
        "own activations:": generic_table(readings),
    }
    return "\n\n".join(
        f"{title}\n\n{table.to_markdown()}" for title, table in titled.items() if table is not None
    )


def loss_table(readings: Sequence[ReadingResult]) -> ResultTable:
    """Collect the answer loss of each condition, in nats per token."""
    names = sort_known((name for one in readings for name in one.metrics.answer_loss), CONDITIONS)
    return ResultTable(
        head=("split", "view", "n", *names, *(f"untrained {name}" for name in _UNTRAINED)),
        rows=tuple(
            (
                *(one.split, one.view, one.metrics.grounded_gain.n),
                *map(one.metrics.answer_loss.get, names),
                *map(one.metrics.untrained.get, _UNTRAINED),
            )
            for one in readings
        ),
        names=2,
    )


def gain_table(readings: Sequence[ReadingResult]) -> ResultTable:
    """Collect the differences of answer losses, in nats per token."""
    return ResultTable(
        head=("split", "view", *map(_words, GAINS), "best uninformed"),
        rows=tuple(
            (
                *(one.split, one.view),
                *(getattr(one.metrics, name) for name in GAINS),
                one.metrics.best_uninformed,
            )
            for one in readings
        ),
        names=2,
    )


def identification_table(readings: Sequence[ReadingResult]) -> ResultTable | None:
    """Collect the shares of items whose gold answer is the likeliest; None if not measured."""
    measured = [
        (one.split, one.view, one.metrics.identification)
        for one in readings
        if one.metrics.identification is not None and one.metrics.identification.asked
    ]
    names = sort_known((name for *_, found in measured for name in found.accuracy), CONDITIONS)
    table = ResultTable(
        head=("split", "view", "items", "n", *names, *map(_words, _IDENTIFIED)),
        rows=tuple(
            (
                *(split, view, found.asked, found.chance.n),
                *map(found.accuracy.get, names),
                *(getattr(found, name) for name in _IDENTIFIED),
            )
            for split, view, found in measured
        ),
        names=2,
    )
    return table if measured else None


def generic_table(readings: Sequence[ReadingResult]) -> ResultTable | None:
    """Collect the shares of written answers that do without activations; None if there are none."""
    measured = [(one, one.metrics.generic) for one in readings if one.metrics.generic]
    table = ResultTable(
        head=("split", "view", "n", *(f"generic: same for {name}" for name in AGAINST)),
        rows=tuple(
            (
                *(one.split, one.view, max(own.n for own in found.values())),
                *map(found.get, AGAINST),
            )
            for one, found in measured
        ),
        names=2,
    )
    return table if measured else None


def _words(name: str) -> str:
    return name.replace("_", " ")
