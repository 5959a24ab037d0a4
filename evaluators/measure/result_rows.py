"""Rows of losses.parquet and results.parquet: a row per loss, and a row per number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.records.estimate import Estimate
from evaluators.measure.metrics import JudgedMetrics, Metrics, RobustnessMetrics
from trainers.data.rows import Row

WHOLE = "all"
"""Name of the group of everything."""


def loss_rows(
    rows: Sequence[Row], table: Mapping[str, list[list[float]]], effects: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of losses.parquet, without split and view.

    Args:
        rows: evaluated rows.
        table: by condition, of each row the answer loss of each question, in nats per token.
        effects: control effect by example id, in nats.
    """
    for condition, losses in table.items():
        for row, row_losses in zip(rows, losses, strict=True):
            for question, loss in zip(row.questions, row_losses, strict=True):
                yield {
                    "kind": row.conversation.kind,
                    "category": row.conversation.category,
                    "control_id": row.conversation.control_id,
                    "example_id": row.example_id,
                    "question": question.question,
                    "type": question.type,
                    "condition": condition,
                    "loss": loss,
                    "control_effect": effects.get(row.example_id),
                }


def result_rows(
    group: str, metrics: Metrics | Mapping[str, Metrics], *, min_controls: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each estimate, however deep, under its dotted name.

    Args:
        group: name of the group that the metrics are about.
        metrics: metrics, or several by name.
        min_controls: controls that an interval needs; a row without one says so in `note`.
    """
    for name, leaf in _estimates(metrics):
        missing = f"{leaf.n} controls; an interval needs {min_controls}"
        yield {
            "group": group,
            "metric": name,
            **leaf.model_dump(),
            "note": missing if leaf.low is None else None,
        }


def robustness_rows(metrics: RobustnessMetrics, *, min_controls: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of robustness: each metric under the name of its change.

    Those of held-out categories are in split test_ood.

    Args:
        metrics: what was measured.
        min_controls: controls that an interval needs.
    """
    for split, views in metrics.views.items():
        for view, changes in views.items():
            for change, found in changes.items():
                # a fine-tune alone is another target
                foreign = found.moved is not None
                about = {"split": split, "view": view, "foreign_target": foreign}
                for row in result_rows(WHOLE, {change: found}, min_controls=min_controls):
                    yield {**about, **row}
                for name in ("moved", "out_of_distribution"):
                    value = getattr(found, name)
                    if value is not None:
                        row = row_without_interval(f"{change}.{name}", value, found.right.drop.n)
                        yield {**about, **row}
    for view, held_out in metrics.held_out.items():
        about = {"split": "test_ood", "view": view, "foreign_target": False}
        for row in result_rows(WHOLE, {"held_out": held_out}, min_controls=min_controls):
            yield {**about, **row}


def judged_rows(metrics: JudgedMetrics, *, min_controls: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a judge's verdicts, without `foreign_target`.

    Args:
        metrics: what the judge found.
        min_controls: controls that an interval needs.
    """
    for split, views in metrics.judged.items():
        for view, found in views.items():
            about = {"split": split, "view": view}
            shares = {f"judged.{verdict}": pair for verdict, pair in found.shares.items()}
            for row in result_rows(WHOLE, shares, min_controls=min_controls):
                yield {**about, **row}
            agreement = found.agreement
            for name, value in (("raw", agreement.raw), ("kappa", agreement.kappa)):
                if value is not None:
                    row = row_without_interval(f"judged.agreement.{name}", value, None)
                    yield {**about, **row, "note": f"{agreement.n} answers, judged twice"}


def row_without_interval(metric: str, value: float, n: int | None) -> dict[str, Any]:
    """Make the row of a number that has no interval, about `n` controls or prompts."""
    return {
        "group": WHOLE,
        "metric": metric,
        "estimate": value,
        "low": None,
        "high": None,
        "n": n,
        "note": "without an interval",
    }


def _estimates(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Estimate]]:
    """Find every estimate below `found`, with its dotted name."""
    if isinstance(found, Estimate):
        yield ".".join(path), found
    elif isinstance(found, Metrics | Mapping):
        for name, value in found.items() if isinstance(found, Mapping) else found:
            yield from _estimates(value, (*path, name))
