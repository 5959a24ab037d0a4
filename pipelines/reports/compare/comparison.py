"""The comparison of several evaluated runs on the questions that all of them were asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import DataError
from core.records.estimate import Estimate
from evaluators.comparison.answers import compare_answers
from evaluators.comparison.losses import compare_losses
from evaluators.comparison.values import ComparedView, adjust_p_values
from evaluators.measure.result_files import ANSWERS_FILE, read_rows
from pipelines.reports.compare.runs import Run


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """One question that all runs wrote an answer to; `texts` has one a run."""

    split: str
    view: str
    control: str
    question: str
    gold: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Any number of runs, side by side.

    Attributes:
        runs: the baseline first.
        losses: answer losses and gains, nats per token.
        written: what is measured of written answers, and identification, where it was.
        answers: the written answers themselves.
    """

    runs: tuple[Run, ...]
    losses: tuple[ComparedView, ...]
    written: tuple[ComparedView, ...]
    answers: tuple[ComparedAnswer, ...]


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare runs on the questions that all of them were asked.

    The p-values are adjusted (Holm) for all differences of losses and gains together, and apart
    from them for all of written answers and identification.

    Raises:
        DataError: there is no such question.
    """
    folders = [[found.data for found in run.evaluations] for run in runs]
    losses = compare_losses(folders)
    if not losses:
        raise DataError(
            f"compare: {', '.join(run.name for run in runs)} have no question in common, "
            "expected evaluations of the same data, splits and views."
        )
    return Comparison(
        runs=tuple(runs),
        losses=adjust_p_values(losses),
        written=adjust_p_values(compare_answers(folders)),
        answers=tuple(_answers(runs)),
    )


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return every number as a row; differences are to the first run."""
    return [
        {
            "split": case.split,
            "view": case.view,
            "metric": metric,
            "run": run.name,
            "target": str(run.target),
            "foreign_target": run.foreign,
            **_ends("", value.estimate),
            "n": value.estimate.n,
            **_ends("difference_", value.difference),
            "p": value.p,
            "differs": value.differs,
        }
        for case in (*comparison.losses, *comparison.written)
        for metric, values in case.metrics.items()
        for run, value in zip(comparison.runs, values, strict=True)
    ]


def _ends(prefix: str, found: Estimate | None) -> dict[str, float | None]:
    numbers = (None, None, None) if found is None else (found.estimate, found.low, found.high)
    return dict(zip((f"{prefix}estimate", f"{prefix}low", f"{prefix}high"), numbers, strict=True))


def _answers(runs: Sequence[Run]) -> Iterator[ComparedAnswer]:
    """Yield the questions that every run answered; a pool answers with its first run."""
    tables = [
        {
            (row["split"], row["view"], row["example_id"], row["question"]): row
            for row in read_rows(run.evaluations[0].data / ANSWERS_FILE)
        }
        for run in runs
    ]
    for key, row in tables[0].items():
        if all(key in table for table in tables):
            yield ComparedAnswer(
                split=row["split"],
                view=row["view"],
                control=row["control"],
                question=row["question"],
                gold=row["gold"],
                texts=tuple(table[key]["right"] for table in tables),
            )
