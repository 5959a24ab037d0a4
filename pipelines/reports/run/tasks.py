"""Reading tasks as a section of the report, as Markdown tables, and as a plot by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from core.wording import ABSENT, sort_known
from evaluators.stats.estimates import Estimate
from evaluators.tasks.config import PredictorName
from evaluators.tasks.metrics import PredictorMetrics, TaskMetrics, TasksMetrics
from pipelines.reports import plots
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure
from pipelines.reports.tables import CellValue, markdown

_OWN = "lit"
_ORDER: tuple[str, ...] = get_args(PredictorName)
_FIGURE = "tasks-layers"
_COLOURS = {"lit": "own", "probe": "other", "neighbour": "raw", "patchscope": "third"}
"""Colours of methods in the plot; any other is drawn in a plain one."""


@dataclass(frozen=True, slots=True)
class MeasuredTask:
    """A task that was measured, and the subjects of its test."""

    metrics: TaskMetrics
    n: int


@dataclass(frozen=True, slots=True)
class TaskPage:
    """What the page shows of reading tasks.

    Attributes:
        predictors: methods in the order of their columns.
        measured: tasks by name.
        why_not: why a task was not measured, by name.
    """

    predictors: list[str]
    measured: dict[str, MeasuredTask]
    why_not: dict[str, str]

    @property
    def rivals(self) -> list[str]:
        """All methods but LIT."""
        return [name for name in self.predictors if name != _OWN]


def task_page(metrics: TasksMetrics) -> TaskPage:
    """Sort what was measured for a page."""
    measured = {
        name: MeasuredTask(task, max(one.contained.n for one in task.predictors.values()))
        for name, task in metrics.tasks.items()
        if task.predictors
    }
    return TaskPage(
        predictors=sort_known(
            (name for one in measured.values() for name in one.metrics.predictors), _ORDER
        ),
        measured=measured,
        why_not={
            name: task.why_not for name, task in metrics.tasks.items() if task.why_not is not None
        },
    )


def task_tables(metrics: TasksMetrics) -> str:
    """Write the tasks as Markdown, with 95 % intervals: named objects, choices, LIT's lead."""
    page = task_page(metrics)
    parts = []
    if page.measured:
        parts = [
            "Share of answers that name the object:",
            _table(page, page.predictors, "contained"),
            "Right choices among four (0.25 without reading):",
            _table(page, page.predictors, "chosen"),
            "LIT less each method, paired:",
            _table(page, page.rivals, "lead"),
        ]
    notes = [f"{name}: not measurable; {why}." for name, why in page.why_not.items()]
    return "\n\n".join([*parts, *notes])


def task_figures(metrics: TasksMetrics) -> dict[str, PageFigure]:
    """Draw the share of named objects by block, for the methods that can read several."""
    panels, rows = [], []
    for name, task in task_page(metrics).measured.items():
        lines = []
        for predictor, own in task.metrics.predictors.items():
            points = _by_layer(own)
            if points:
                lines.append(_line(predictor, points))
            rows += [_row(name, predictor, layer, found) for layer, found in points.items()]
        if lines:
            panels.append(plots.LinePanel(name, f"n = {task.n}", tuple(lines)))
    if not panels:
        return {}
    wide, narrow = (
        plots.lines(panels, xlabel="block that is read", ylabel="share", columns=columns)
        for columns in (3, 1)
    )
    description = "Share of answers that name the object, by block that is read"
    return {_FIGURE: make_page_figure(_FIGURE, description, wide, narrow, rows)}


def _by_layer(own: PredictorMetrics) -> dict[int, Estimate]:
    found = {int(layer): one for layer, one in own.by_layer.items() if one.measured}
    return dict(sorted(found.items()))


def _line(name: str, points: dict[int, Estimate]) -> plots.Series:
    values = tuple(one.estimate or 0.0 for one in points.values())
    return plots.Series(name, tuple(points), values, _COLOURS.get(name, "plain"))


def _row(task: str, predictor: str, layer: int, found: Estimate) -> dict[str, CellValue]:
    return {"task": task, "predictor": predictor, "layer": layer, **found.model_dump()}


def _table(page: TaskPage, predictors: list[str], measure: str) -> str:
    lines = []
    for name, task in page.measured.items():
        own = task.metrics.predictors
        found = [getattr(own[one], measure) if one in own else None for one in predictors]
        n = task.metrics.choices if measure == "chosen" else task.n
        lines.append([name, str(n), *(ABSENT if one is None else str(one) for one in found)])
    return markdown(["task", "n", *(name.replace("_", " ") for name in predictors)], lines)
