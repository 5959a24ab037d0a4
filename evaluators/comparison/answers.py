"""Written answers and identification of several evaluations, on what all of them were asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.records.tables import SPLITS, VIEWS
from core.text.wording import sort_pairs
from evaluators.answers.answer_quality import parse_answers
from evaluators.answers.metrics import METRICS
from evaluators.comparison.shared_questions import Key, Values, read_items
from evaluators.comparison.values import ComparedMetric, ComparedView, compare_shared
from evaluators.measure.panel import column_mean
from evaluators.measure.result_files import ANSWERS_FILE, read_rows

IDENTIFIED = "identified"
"""Share of the items of identification in which gold was found, given the row's own activations."""
_SCORE = "score"

Scores = dict[tuple[str, str, str], Values]
"""Scores of an evaluation by split, view and metric."""


def compare_answers(sides: Sequence[Sequence[Path]]) -> list[ComparedView]:
    """Compare written answers and identification, given the rows' own activations.

    Args:
        sides: for each run the folders of its pooled evaluations, the baseline first.

    Returns:
        Each split and view of which all runs have an answer to the same question, or an item with
        the same options; p-values are not adjusted yet.
    """
    found = [[_read_scores(folder) for folder in side] for side in sides]
    every = [one for side in found for one in side]
    shared = set(every[0]).intersection(*every[1:])
    out = []
    for split, view in sort_pairs(((s, v) for s, v, _ in shared), SPLITS, VIEWS):
        compared = [
            one
            for metric in (IDENTIFIED, *(own.name for own in METRICS))
            if (split, view, metric) in shared
            and (one := _compare_metric(split, view, metric, found)) is not None
        ]
        if compared:
            out.append(
                ComparedView(
                    split,
                    view,
                    max(one.controls for one in compared),
                    max(one.questions for one in compared),
                    {metric: values for one in compared for metric, values in one.metrics.items()},
                )
            )
    return out


def _compare_metric(
    split: str,
    view: str,
    metric: str,
    found: Sequence[Sequence[Scores]],
) -> ComparedView | None:
    scores = [[one[split, view, metric] for one in side] for side in found]
    own = ComparedMetric(column_mean([_SCORE], _SCORE), lambda means_CK: means_CK[:, 0])
    return compare_shared(split, view, scores, lambda conditions: {metric: own})


def _read_scores(folder: Path) -> Scores:
    """Read the scores of one evaluation; a file that it does not have gives none."""
    out: dict[tuple[str, str, str], dict[Key, dict[str, float]]] = {}
    path = folder / ANSWERS_FILE
    for row in read_rows(path if path.is_file() else None):
        own, _ = parse_answers(row)
        key = (row["control_id"], row["example_id"], row["question"])
        for metric in METRICS:
            if metric.applies(own):
                place = (row["split"], row["view"], metric.name)
                out.setdefault(place, {})[key] = {_SCORE: metric.score(own)}
    for (split, view), items in read_items(folder).items():
        chosen = {key: {_SCORE: found["right"]} for key, found in items.items() if "right" in found}
        out[split, view, IDENTIFIED] = chosen
    return dict(out)
