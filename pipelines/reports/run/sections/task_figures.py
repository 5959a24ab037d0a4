"""The plot of reading tasks by block; apart from their tables, which need no matplotlib."""

from __future__ import annotations

from functools import partial

from core.records.estimate import Estimate
from core.text.text_tables import CellValue
from evaluators.tasks.metrics import PredictorMetrics, TasksMetrics
from pipelines.reports import plots
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure
from pipelines.reports.run.sections.tasks import task_page

_FIGURE = "tasks-layers"
_COLOURS = {"lit": "own", "probe": "other", "neighbour": "raw", "patchscope": "third"}
"""Colours of methods in the plot; any other is drawn in a plain one."""


def task_figures(metrics: TasksMetrics) -> dict[str, PageFigure]:
    """Draw each task's headline measure by block, for the methods that read activations."""
    panels, rows = [], []
    for name, task in task_page(metrics).measured.items():
        lines = []
        for predictor, own in task.predictors.items():
            points = _by_layer(own)
            if points:
                lines.append(_line(predictor, points))
            rows += [_row(name, predictor, layer, found) for layer, found in points.items()]
        if lines:
            claims = task.headline == "chosen"
            n, level = (task.choices, task.chance) if claims else (task.n, None)
            panels.append(plots.SeriesPanel(name, f"n = {n}", tuple(lines), level))
    if not panels:
        return {}
    draw = partial(plots.lines, panels, xlabel="block that is read", ylabel="share")
    description = "Accuracy of each method by block, with intervals"
    return {_FIGURE: make_page_figure(_FIGURE, description, draw, rows)}


def _by_layer(own: PredictorMetrics) -> dict[int, Estimate]:
    found = {int(layer): one for layer, one in own.by_layer.items() if one.measured}
    return dict(sorted(found.items()))


def _line(name: str, points: dict[int, Estimate]) -> plots.Series:
    values = tuple(one.estimate or 0.0 for one in points.values())
    ends = tuple(
        None if one.low is None or one.high is None else (one.low, one.high)
        for one in points.values()
    )
    return plots.Series(name, tuple(points), values, _COLOURS.get(name, "plain"), ends)


def _row(task: str, predictor: str, layer: int, found: Estimate) -> dict[str, CellValue]:
    return {"task": task, "predictor": predictor, "layer": layer, **found.model_dump()}
