"""The figures of a report: which there are, what each shows, and its data as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from core.tables import VIEWS
from core.wording import sort_known
from pipelines.reports import plots
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure
from pipelines.reports.plots.style import png
from pipelines.reports.run.claims import below_untrained
from pipelines.reports.run.data import ControlLoss, Reading, ReportData, TrainingLog
from pipelines.reports.run.files import Leaf
from pipelines.reports.run.panel import PanelData
from pipelines.reports.tables import CellValue

_NATS = "nats per token"
_CONDITION_COLOURS = {"right": "own", "other": "other"}
_KIND_COLOURS = ("own", "other", "third", "plain", "ink")
_GAINS = ("grounded gain", "information gain", "below untrained")


def report_figures(data: ReportData, panel: PanelData) -> dict[str, PageFigure]:
    """Figures by name: `reading-SPLIT`, `gains-SPLIT`, `controls-SPLIT`, `training`.

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
    if data.training is not None:
        figures.append(_training(data.training, data.counts["train"].get("best_step")))
    return {figure.name: figure for figure in figures}


def loss_panel(data: ReportData) -> bytes | None:
    """The loss panel of every split and view in one PNG; None where nothing was measured."""
    panels = [_loss_points(reading, reading.split) for reading in data.readings if reading.losses]
    if not panels:
        return None
    return png(plots.intervals(panels, xlabel=_NATS, guide="right"))


def _columns(data: ReportData) -> int:
    """Panels side by side: the same in all splits, so that the views stand under each other."""
    splits = [reading.split for reading in data.readings]
    return min(4, max(3, *(splits.count(split) for split in splits)))


def _reading(split: str, data: ReportData) -> PageFigure:
    limits = plots.common_limits([_loss_points(reading) for reading in data.readings])
    readings = [reading for reading in data.readings if reading.split == split]
    panels = [_loss_points(reading) for reading in readings]
    wide, narrow = (
        plots.intervals(panels, xlabel=_NATS, columns=columns, guide="right", limits=limits)
        for columns in (_columns(data), 1)
    )
    rows = [
        _row(reading, condition, leaf)
        for reading in readings
        for condition, leaf in (
            *reading.losses.items(),
            *((f"untrained {name}", leaf) for name, leaf in reading.untrained.items()),
        )
    ]
    description = f"Answer loss on split {split}, by view and by what the decoder was given"
    return make_page_figure(f"reading-{split}", description, wide, narrow, rows)


def _gain(split: str, data: ReportData) -> PageFigure:
    limits = plots.common_limits([_gain_points(reading) for reading in data.readings], zero=True)
    readings = [reading for reading in data.readings if reading.split == split]
    panels = [_gain_points(reading) for reading in readings]
    wide, narrow = (
        plots.intervals(panels, xlabel=_NATS, columns=columns, zero=True, limits=limits)
        for columns in (_columns(data), 1)
    )
    rows = [_row(reading, name, leaf) for reading in readings for name, leaf in _gains(reading)]
    return make_page_figure(
        f"gains-{split}", f"Gains on split {split}, by view", wide, narrow, rows
    )


def _controls(split: str, losses: Sequence[ControlLoss], columns: int) -> PageFigure:
    kinds = list(dict.fromkeys(loss.kind for loss in losses))
    panels = []
    for view in sort_known((loss.view for loss in losses), VIEWS):
        here = [loss for loss in losses if loss.view == view]
        cheaper = sum(loss.right < loss.other for loss in here)
        series = tuple(
            plots.Series(
                kind,
                tuple(loss.right for loss in here if loss.kind == kind),
                tuple(loss.other for loss in here if loss.kind == kind),
                _KIND_COLOURS[i % len(_KIND_COLOURS)],
            )
            for i, kind in enumerate(kinds)
        )
        panels.append(plots.ScatterPanel(view, f"{cheaper} of {len(here)} above", series))
    wide, narrow = (
        plots.paired(panels, xlabel="right", ylabel="other", columns=n) for n in (columns, 2)
    )
    rows: list[dict[str, CellValue]] = [
        {"split": x.split, "view": x.view, "kind": x.kind, "right": x.right, "other": x.other}
        for x in losses
    ]
    description = f"Answer loss of each control on split {split}: right against other"
    return make_page_figure(f"controls-{split}", description, wide, narrow, rows)


def _training(log: TrainingLog, best: int | None) -> PageFigure:
    loss = plots.Series("training loss", log.steps, log.losses)
    validation = plots.Series("validation right", log.validation_steps, log.validation, "other")
    wide, narrow = (
        plots.training_curve(loss, validation, best=best, wide=wide) for wide in (True, False)
    )
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
    return make_page_figure("training", description, wide, narrow, rows)


def _loss_points(reading: Reading, section: str = "") -> plots.Panel:
    points = [
        plots.Point(name, leaf.estimate, leaf.low, leaf.high, _CONDITION_COLOURS.get(name, "plain"))
        for name, leaf in reading.losses.items()
    ]
    untrained = reading.untrained.get("right")
    if untrained is not None:
        points.append(
            plots.Point(
                "untrained", untrained.estimate, untrained.low, untrained.high, "ink", hollow=True
            )
        )
    return plots.Panel(reading.view, f"n = {reading.n}", tuple(points), section)


def _gain_points(reading: Reading) -> plots.Panel:
    points = tuple(
        plots.Point(
            name,
            leaf.estimate,
            leaf.low,
            leaf.high,
            colour="own" if leaf.above_zero else "plain",
            hollow=not leaf.above_zero,
        )
        for name, leaf in _gains(reading)
    )
    return plots.Panel(reading.view, f"n = {reading.n}", points)


def _gains(reading: Reading) -> list[tuple[str, Leaf]]:
    leaves = (reading.grounded, reading.information, below_untrained(reading))
    return [(name, leaf) for name, leaf in zip(_GAINS, leaves, strict=True) if leaf is not None]


def _row(reading: Reading, name: str, leaf: Leaf) -> dict[str, Any]:
    return {
        "split": reading.split,
        "view": reading.view,
        "measure": name,
        "estimate": leaf.estimate,
        "low": leaf.low,
        "high": leaf.high,
        "n": leaf.n,
    }
