"""The page that sets runs side by side, with its figures and numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core.files import write_bytes
from core.text.text_tables import csv_bytes
from evaluators.comparison.losses import METRICS
from evaluators.comparison.values import BOOTSTRAP, ComparedView
from pipelines.reports import plots
from pipelines.reports.compare.comparison import ComparedAnswer, Comparison, comparison_rows
from pipelines.reports.compare.runs import changed_settings, single_seed_runs
from pipelines.reports.pages.render import render_page
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure, write_figures

PAGE = "compare.html"
"""Name of the page's file."""
TITLES = {
    "right": "right",
    "hidden_gain": "hidden gain",
    "below_rivals": "below rivals",
    "below_untrained": "below untrained",
    "grounded_gain": "grounded gain",
    "information_gain": "information gain",
    "identified": "gold identified",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "confidence": "confidence, nats per token",
}
"""Titles of the metrics that do not go by their own names."""


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write the page of a comparison.

    Args:
        comparison: what is shown.
        out: folder for `compare.html`, `comparison.csv` (every number) and `figures/`, which holds
            each figure as SVG and PNG, with its data as CSV.

    Returns:
        The path of `compare.html`.

    Raises:
        StorageError: the disk is full or read-only.
    """
    rows = comparison_rows(comparison)
    compared = {metric for view in comparison.losses for metric in view.metrics}
    figures = [_figure(comparison, metric, rows) for metric in METRICS if metric in compared]
    write_figures(figures, out)
    write_bytes(out / "comparison.csv", csv_bytes(rows))
    page = out / PAGE
    write_bytes(page, _page(comparison, figures).encode())
    return page


def metric_title(metric: str) -> str:
    """Return the title of a metric."""
    return TITLES.get(metric, metric)


def _figure(comparison: Comparison, metric: str, rows: Sequence[dict[str, Any]]) -> PageFigure:
    """Draw one metric: a panel for each split and view, a point for each run."""
    panels = [
        _panel(comparison, view, metric) for view in comparison.losses if metric in view.metrics
    ]
    zero = metric != "right"
    draw = partial(plots.intervals, panels, xlabel="nats per token", zero=zero)
    return make_page_figure(
        metric.replace("_", "-"),
        f"{TITLES[metric]} of each run, by split and view",
        draw,
        [row for row in rows if row["metric"] == metric],
    )


def _panel(comparison: Comparison, view: ComparedView, metric: str) -> plots.Panel:
    points = [
        plots.Point(
            run.name,
            value.estimate.estimate,
            value.estimate.low,
            value.estimate.high,
            "own" if value.differs else "ink" if k == 0 else "plain",
        )
        for k, (run, value) in enumerate(zip(comparison.runs, view.metrics[metric], strict=True))
        if value.estimate.estimate is not None
    ]
    return plots.Panel(view.view, f"n = {view.controls}", tuple(points), view.split)


def _page(comparison: Comparison, figures: Sequence[PageFigure]) -> str:
    return render_page(
        "compare/compare.html",
        filters={"p": _p},
        comparison=comparison,
        title=metric_title,
        least=BOOTSTRAP.min_controls,
        figures=figures,
        single=single_seed_runs(comparison.runs),
        changes=changed_settings(comparison.runs),
        targets=[str(run.target) for run in comparison.runs],
        marked=_count_marked(comparison.losses),
        asked=_count_differences(comparison.losses),
        written_marked=_count_marked(comparison.written),
        written_asked=_count_differences(comparison.written),
        answers=_by_control(comparison.answers),
    )


def _count_marked(views: Sequence[ComparedView]) -> int:
    return sum(one.differs for view in views for values in view.metrics.values() for one in values)


def _count_differences(views: Sequence[ComparedView]) -> int:
    return sum(len(values) - 1 for view in views for values in view.metrics.values())


def _by_control(
    answers: Sequence[ComparedAnswer],
) -> list[tuple[str, str, str, list[ComparedAnswer]]]:
    """Group answers as (split, view, control, its answers), in order."""
    keys = dict.fromkeys((one.split, one.view, one.control) for one in answers)
    return [
        (*key, [one for one in answers if (one.split, one.view, one.control) == key])
        for key in keys
    ]


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
