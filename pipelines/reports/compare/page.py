"""One self-contained page that sets runs side by side, with its figures and numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.files import write_bytes
from core.wording import count, number
from pipelines.reports import plots
from pipelines.reports.compare.cells import SETTINGS, Case
from pipelines.reports.compare.runs import (
    METRICS,
    Answers,
    Comparison,
    changed_settings,
    comparison_rows,
    mixed_pools,
    single_seeds,
)
from pipelines.reports.pages.render import render
from pipelines.reports.run.figures import ReportFigure, figure_files
from pipelines.reports.tables import csv_bytes

PAGE = "compare.html"
"""Name of the page's file."""
TITLES = {
    "right": "right",
    "below_untrained": "below untrained",
    "grounded_gain": "grounded gain",
    "information_gain": "information gain",
    "identified": "gold identified",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "confidence": "confidence, nats per token",
}
"""How metrics are called that are not by their own names."""


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write the page of a comparison.

    Args:
        out: folder for `compare.html`, `comparison.csv` (every number) and `figures/`, which holds
            each figure as SVG and PNG, with its data as CSV.

    Returns:
        The path of `compare.html`.

    Raises:
        StorageError: the disk is full or read-only.
    """
    rows = comparison_rows(comparison)
    figures = comparison_figures(comparison, rows)
    for figure in figures:
        write_bytes(out / "figures" / f"{figure.name}.svg", figure.svg.encode())
        write_bytes(out / "figures" / f"{figure.name}.png", figure.png)
        write_bytes(out / "figures" / f"{figure.name}.csv", figure.csv)
    write_bytes(out / "comparison.csv", csv_bytes(rows))
    page = out / PAGE
    write_bytes(page, _page(comparison, figures).encode())
    return page


def comparison_figures(
    comparison: Comparison, rows: Sequence[dict[str, Any]]
) -> list[ReportFigure]:
    """A figure a metric: every split and view, a point a run."""
    return [_figure(comparison, metric, rows) for metric in METRICS]


def _figure(comparison: Comparison, metric: str, rows: Sequence[dict[str, Any]]) -> ReportFigure:
    panels = [_points(comparison, case, metric) for case in comparison.cases]
    zero = metric != "right"
    wide, narrow = (
        plots.intervals(panels, xlabel="nats per token", columns=columns, zero=zero)
        for columns in (3, 1)
    )
    return figure_files(
        metric.replace("_", "-"),
        f"{TITLES[metric]} of each run, by split and view",
        wide,
        narrow,
        [row for row in rows if row["metric"] == metric],
    )


def _points(comparison: Comparison, case: Case, metric: str) -> plots.Panel:
    points = [
        plots.Point(
            run.name,
            cell.leaf.estimate,
            cell.leaf.low,
            cell.leaf.high,
            "own" if cell.differs else "ink" if k == 0 else "plain",
        )
        for k, (run, cell) in enumerate(zip(comparison.runs, case.cells[metric], strict=True))
        if cell.leaf is not None
    ]
    return plots.Panel(case.view, f"n = {case.controls}", tuple(points), case.split)


def _page(comparison: Comparison, figures: Sequence[ReportFigure]) -> str:
    return render(
        "compare/compare.html",
        filters={"nats": number, "count": count, "p": _p},
        comparison=comparison,
        title=title,
        least=SETTINGS.min_controls,
        figures=figures,
        single=single_seeds(comparison.runs),
        mixed=mixed_pools(comparison.runs),
        changes=changed_settings(comparison.runs),
        marked=_marked(comparison.cases),
        asked=_asked(comparison.cases),
        written_marked=_marked(comparison.written),
        written_asked=_asked(comparison.written),
        answers=_by_control(comparison.answers),
    )


def _marked(cases: Sequence[Case]) -> int:
    return sum(cell.differs for case in cases for cells in case.cells.values() for cell in cells)


def _asked(cases: Sequence[Case]) -> int:
    return sum(len(cells) - 1 for case in cases for cells in case.cells.values())


def _by_control(answers: Sequence[Answers]) -> list[tuple[str, str, str, list[Answers]]]:
    """(split, view, control, its answers), in order."""
    keys = dict.fromkeys((one.split, one.view, one.control) for one in answers)
    return [
        (*key, [one for one in answers if (one.split, one.view, one.control) == key])
        for key in keys
    ]


def title(metric: str) -> str:
    """How a metric is called."""
    return TITLES.get(metric, metric)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
