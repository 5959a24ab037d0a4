"""The curves of steering; apart from its tables, which need no matplotlib."""

from __future__ import annotations

from functools import partial

from core.text.text_tables import CellValue
from evaluators.control.metrics import ControlMetrics
from pipelines.reports import plots
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure

_FIGURE = "control-curves"
_COLOURS = {"weights": "own", "vector": "raw", "difference": "other", "sft": "third"}


def control_figures(metrics: ControlMetrics) -> dict[str, PageFigure]:
    """Draw adherence against damage for every strength that was tried."""
    panels: list[plots.SeriesPanel] = []
    rows: list[dict[str, CellValue]] = []
    for name, control in metrics.controls.items():
        lines = []
        for method, found in control.methods.items():
            points = sorted((max(p.own_perplexity, p.ordinary_perplexity), p) for p in found.curve)
            gains = [p.likelihood if p.adherence is None else p.adherence for _, p in points]
            lines.append(
                plots.Series(
                    method,
                    tuple(min(damage, 10.0) for damage, _ in points),
                    tuple(gains),
                    _COLOURS.get(method, "plain"),
                )
            )
            rows += [
                {"control": name, "method": method, **point.model_dump()} for point in found.curve
            ]
        panels.append(plots.SeriesPanel(name, "validation", tuple(lines)))
    if not panels:
        return {}
    draw = partial(
        plots.lines,
        panels,
        xlabel="perplexity ratio (larger of two)",
        ylabel="adherence",
        shares=False,
    )
    description = "Adherence against damage, by method and strength"
    return {_FIGURE: make_page_figure(_FIGURE, description, draw, rows)}
