"""The figures of a report: which there are, what each shows, and its data as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter

from core.records.estimate import Estimate
from core.records.tables import VIEWS
from core.text.text_tables import CellValue
from core.text.wording import sort_known
from pipelines.reports import plots
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure
from pipelines.reports.plots.style import png
from pipelines.reports.run.data import ControlPoint, ReportData, TrainingLog
from pipelines.reports.run.evaluation import ReadingResult

_NATS = "nats per token"
_CONDITION_COLOURS = {"right": "own", "other": "other"}
_KIND_COLOURS = ("own", "other", "third", "plain", "ink")
_GAINS = (
    *("hidden_gain", "below_rivals"),
    *("grounded_gain", "information_gain", "below_untrained"),
)
"""Fields of `SliceMetrics`."""


def report_figures(data: ReportData) -> dict[str, PageFigure]:
    """Draw the figures by name: `reading-`, `gains-`, `controls-`, `effects-SPLIT`, `training`.

    One whose numbers are absent is left out, and so is a view without any. The axes of `reading`
    and of `gains` are the same in all splits.
    """
    figures: list[PageFigure] = []
    measured = tuple(reading for reading in data.readings if reading.losses)
    data = replace(data, readings=measured)
    for split in dict.fromkeys(reading.split for reading in measured):
        figures.append(_reading(split, data))
        if any(_gains(reading) for reading in measured if reading.split == split):
            figures.append(_gain(split, data))
        losses = [loss for loss in data.control_losses if loss.split == split]
        if losses:
            figures.append(_controls(split, losses, _columns(data)))
        effects = [effect for effect in data.control_effects if effect.split == split]
        if effects:
            figures.append(_effects(split, effects))
    if data.training is not None:
        figures.append(_training(data.training, data.train.get("best_step")))
    return {figure.name: figure for figure in figures}


def loss_panel(data: ReportData) -> bytes | None:
    """Draw the losses of every split and view in one PNG; None where nothing was measured."""
    panels = [_loss_points(reading, reading.split) for reading in data.readings if reading.losses]
    if not panels:
        return None
    return png(plots.intervals(panels, xlabel=_NATS, guide="right"))


def _columns(data: ReportData) -> int:
    """Return the panels side by side: as many in all splits, so that views are aligned."""
    splits = [reading.split for reading in data.readings]
    return min(4, max(3, *(splits.count(split) for split in splits)))


def _reading(split: str, data: ReportData) -> PageFigure:
    limits = plots.common_limits([_loss_points(reading) for reading in data.readings])
    readings = [reading for reading in data.readings if reading.split == split]
    panels = [_loss_points(reading) for reading in readings]
    draw = partial(plots.intervals, panels, xlabel=_NATS, guide="right", limits=limits)
    rows = [
        _row(reading, condition, estimate)
        for reading in readings
        for condition, estimate in (
            *reading.losses.items(),
            *((f"untrained {name}", own) for name, own in reading.untrained.items()),
        )
    ]
    description = f"Answer loss on split {split}, by view and condition"
    columns = (_columns(data), 1)
    return make_page_figure(f"reading-{split}", description, draw, rows, columns=columns)


def _gain(split: str, data: ReportData) -> PageFigure:
    limits = plots.common_limits([_gain_points(reading) for reading in data.readings], zero=True)
    readings = [reading for reading in data.readings if reading.split == split]
    panels = [_gain_points(reading) for reading in readings]
    draw = partial(plots.intervals, panels, xlabel=_NATS, zero=True, limits=limits)
    rows = [_row(reading, name, gain) for reading in readings for name, gain in _gains(reading)]
    description = f"Gains on split {split}, by view"
    columns = (_columns(data), 1)
    return make_page_figure(f"gains-{split}", description, draw, rows, columns=columns)


def _controls(split: str, losses: Sequence[ControlPoint], columns: int) -> PageFigure:
    def note(here: Sequence[ControlPoint]) -> str:
        return f"{sum(loss.x < loss.y for loss in here)} of {len(here)} above"

    panels = _scatter_panels(losses, note)
    draw = partial(plots.paired, panels, xlabel="right", ylabel="other")
    description = f"Answer loss of each control on split {split}: right against other"
    rows = _point_rows(losses, "right", "other")
    return make_page_figure(f"controls-{split}", description, draw, rows, columns=(columns, 2))


def _effects(split: str, effects: Sequence[ControlPoint]) -> PageFigure:
    panels = _scatter_panels(effects, lambda here: f"n = {len(here)}")
    draw = partial(
        plots.paired, panels, xlabel="control effect", ylabel="hidden gain", same_axes=False
    )
    description = f"Hidden gain of each control on split {split} against its control effect"
    rows = _point_rows(effects, "effect", "gain")
    return make_page_figure(f"effects-{split}", description, draw, rows, columns=(3, 2))


def _scatter_panels(
    points: Sequence[ControlPoint], note: Callable[[Sequence[ControlPoint]], str]
) -> list[plots.SeriesPanel]:
    """Make a panel of each view, its kinds in colours of their own."""
    kinds = list(dict.fromkeys(point.kind for point in points))
    panels = []
    for view in sort_known((point.view for point in points), VIEWS):
        here = [point for point in points if point.view == view]
        series = tuple(
            plots.Series(
                kind,
                tuple(point.x for point in here if point.kind == kind),
                tuple(point.y for point in here if point.kind == kind),
                _KIND_COLOURS[i % len(_KIND_COLOURS)],
            )
            for i, kind in enumerate(kinds)
        )
        panels.append(plots.SeriesPanel(view, note(here), series))
    return panels


def _point_rows(points: Sequence[ControlPoint], x: str, y: str) -> list[dict[str, CellValue]]:
    return [
        {"split": one.split, "view": one.view, "kind": one.kind, x: one.x, y: one.y}
        for one in points
    ]


def _training(log: TrainingLog, best: int | None) -> PageFigure:
    loss = plots.Series("training loss", log.steps, log.losses)
    validation = plots.Series("validation right", log.validation_steps, log.validation, "other")
    draw = partial(plots.training_curve, loss, validation, best=best)
    logged = [
        *((*own, None) for own in zip(log.steps, log.losses, log.rates, strict=True)),
        *(
            (step, None, None, right)
            for step, right in zip(log.validation_steps, log.validation, strict=True)
        ),
    ]
    rows: list[dict[str, CellValue]] = [
        {"step": step, "loss": loss, "learning_rate": rate, "validation_right": right}
        for step, loss, rate, right in sorted(logged, key=itemgetter(0))
    ]
    description = "Training loss and validation right by optimiser step"
    return make_page_figure("training", description, draw, rows)


def _loss_points(reading: ReadingResult, section: str = "") -> plots.Panel:
    points = [
        _point(name, estimate, _CONDITION_COLOURS.get(name, "plain"))
        for name, estimate in reading.losses.items()
    ]
    if "right" in reading.untrained:
        points.append(_point("untrained", reading.untrained["right"], "ink", hollow=True))
    return plots.Panel(reading.view, f"n = {reading.n}", tuple(points), section)


def _gain_points(reading: ReadingResult) -> plots.Panel:
    points = tuple(
        _point(name, gain, "own" if gain.above_zero else "plain", hollow=not gain.above_zero)
        for name, gain in _gains(reading)
    )
    return plots.Panel(reading.view, f"n = {reading.n}", points)


def _point(name: str, estimate: Estimate, colour: str, *, hollow: bool = False) -> plots.Point:
    assert estimate.estimate is not None, "conditions that were not measured are not drawn"
    return plots.Point(name, estimate.estimate, estimate.low, estimate.high, colour, hollow=hollow)


def _gains(reading: ReadingResult) -> list[tuple[str, Estimate]]:
    """Return the gains that were measured, by name."""
    found = ((name, getattr(reading.metrics, name)) for name in _GAINS)
    return [
        (name.replace("_", " "), gain) for name, gain in found if gain is not None and gain.measured
    ]


def _row(reading: ReadingResult, name: str, estimate: Estimate) -> dict[str, CellValue]:
    return {
        "split": reading.split,
        "view": reading.view,
        "measure": name,
        "estimate": estimate.estimate,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
    }
