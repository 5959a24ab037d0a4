"""Plots of a report: intervals in small multiples, the training curve, one dot a control.

Every function takes plain values and returns a matplotlib figure that no global state knows of;
`pipelines.plot_style` turns it into SVG and PNG. Colours are names in its `PALETTE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.plot_style import PALETTE, STYLE
from pipelines.wording import number

_PAGE, _PHONE = 10.0, 4.4
"""Width of a figure in inches, for a page and for a phone."""
_XLABEL, _TITLE = 0.44, 7.0
"""How far under its panel the x label stands, in inches; how far above it the title, in points."""


@dataclass(frozen=True, slots=True)
class Point:
    """One estimate of a panel; `low` and `high` are None where it has no interval."""

    label: str
    estimate: float
    low: float | None = None
    high: float | None = None
    colour: str = "plain"
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of small multiples: points from top to bottom.

    A panel whose `section` differs from the one before it starts a new row, under that name.
    """

    title: str
    note: str
    points: tuple[Point, ...]
    section: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """A named set of (x, y) points."""

    label: str
    x: tuple[int, ...] | tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "own"


@dataclass(frozen=True, slots=True)
class ScatterPanel:
    """One panel of `paired`: its series share axes."""

    title: str
    note: str
    series: tuple[Series, ...]


def intervals(
    panels: Sequence[Panel],
    *,
    xlabel: str,
    columns: int = 4,
    zero: bool = False,
    guide: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Points with their intervals, one line a point, in small multiples that share the x axis.

    Args:
        panels: filled row by row.
        xlabel: what is measured, with its unit.
        columns: panels that have room side by side; 1 suits a phone.
        zero: draw a line at zero, and keep it in sight.
        guide: label of the point at whose estimate a line is drawn through each panel.
        limits: ends of the x axis, such as `common_limits` of several figures; None for these
            panels' own.
    """
    size = _font_size(columns)
    total = _PAGE if columns > 1 else _PHONE
    labels = [point.label for panel in panels for point in panel.points]
    left = max(0.5, 0.2 + max(map(len, labels), default=0) * size * 0.0082)
    right, top, below, gap, line = 0.1, 0.42, 0.52, 0.28, 0.27
    width = (total - left - right - gap * (columns - 1)) / columns
    rows = _rows(panels, columns)
    heights = [max(len(panel.points) for panel in row) * line for row in rows]
    height = sum(heights) + len(rows) * (top + below)
    limits = limits or common_limits(panels, zero=zero)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(total, height))
        y = height
        section = ""
        for row, tall in zip(rows, heights, strict=True):
            y -= top + tall
            for i, panel in enumerate(row):
                x = left + i * (width + gap)
                axes = figure.add_axes((x / total, y / height, width / total, tall / height))
                _interval_panel(axes, panel, limits, size, zero=zero, guide=guide, labels=i == 0)
            if row[0].section != section:
                section = row[0].section
                figure.text(
                    0.02,
                    (y + tall + _TITLE / 72) / height,
                    section,
                    size=size,
                    color=PALETTE["muted"],
                    style="italic",
                )
            figure.text(
                left / total, (y - _XLABEL) / height, xlabel, size=size, color=PALETTE["muted"]
            )
            y -= below
    return figure


def common_limits(panels: Sequence[Panel], *, zero: bool = False) -> tuple[float, float]:
    """Ends of an x axis that holds every point and interval of `panels`, and zero where asked."""
    values = [
        value
        for panel in panels
        for point in panel.points
        for value in (point.estimate, point.low, point.high)
        if value is not None
    ]
    if zero:
        values.append(0.0)
    return _padded(min(values, default=0.0), max(values, default=1.0), 0.05)


def training_curve(loss: Series, validation: Series, *, best: int | None, wide: bool) -> Figure:
    """Training loss, raw and smoothed, and validation `right`, over optimiser steps.

    Args:
        loss: training loss by step, nats per token.
        validation: validation `right` by step, nats per token.
        best: step of the checkpoint that was kept.
        wide: for a page's width; otherwise for a phone's.
    """
    size = _font_size(2 if wide else 1)
    total, height = (_PAGE, 3.6) if wide else (_PHONE, 3.4)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(total, height))
        axes = figure.add_axes(
            (0.62 / total, 0.55 / height, (total - 0.8) / total, (height - 0.95) / height)
        )
        _frame(axes, size)
        axes.grid(axis="y", color=PALETTE["rule"], linewidth=0.6)
        if loss.x:
            axes.plot(loss.x, loss.y, color=PALETTE["raw"], linewidth=1.0)
            axes.plot(loss.x, smooth(loss.y), color=PALETTE["own"], linewidth=2.0, label=loss.label)
        if validation.x:
            axes.plot(
                validation.x,
                validation.y,
                color=PALETTE["other"],
                linewidth=1.4,
                marker="o",
                markersize=5,
                markeredgecolor=PALETTE["paper"],
                label=validation.label,
            )
        if best is not None:
            axes.axvline(best, color=PALETTE["muted"], linewidth=0.8, dashes=(3, 3))
            late = best > 0.6 * max((*loss.x, *validation.x, 1))
            axes.annotate(
                f"kept: step {best}",
                (best, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-5 if late else 5, -3),
                textcoords="offset points",
                ha="right" if late else "left",
                va="top",
                size=size,
                color=PALETTE["muted"],
            )
        axes.set_xlabel("optimiser step", size=size, color=PALETTE["muted"])
        axes.set_title(
            "nats per token", size=size, color=PALETTE["muted"], loc="left", pad=8, x=-0.04
        )
        _legend(axes, size)
    return figure


def paired(panels: Sequence[ScatterPanel], *, xlabel: str, ylabel: str, columns: int = 4) -> Figure:
    """One dot a unit, under two conditions, with the line where both are equal.

    Args:
        panels: filled row by row; all share both axes.
        xlabel: the condition on the x axis.
        ylabel: the condition on the y axis.
        columns: panels that have room side by side; at most 2 suit a phone.
    """
    size = _font_size(columns // 2)
    total = _PAGE if columns > 2 else _PHONE
    left, right, gap, top, below = 0.62, 0.1, 0.3, 0.42, 0.62
    side = (total - left - right - gap * (columns - 1)) / columns
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    legend = 0.3 if any(len(panel.series) > 1 for panel in panels) else 0.0
    height = len(rows) * (side + top + below) + legend
    values = [v for panel in panels for series in panel.series for v in (*series.x, *series.y)]
    limits = _padded(min(values, default=0.0), max(values, default=1.0), 0.06)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(total, height))
        for j, row in enumerate(rows):
            y = height - legend - (j + 1) * (side + top + below) + below
            for i, panel in enumerate(row):
                x = left + i * (side + gap)
                axes = figure.add_axes((x / total, y / height, side / total, side / height))
                _frame(axes, size)
                axes.plot(limits, limits, color=PALETTE["rule"], linewidth=1.0)
                for series in panel.series:
                    axes.plot(
                        series.x,
                        series.y,
                        linestyle="none",
                        marker="o",
                        markersize=4.2,
                        markeredgewidth=0.5,
                        markeredgecolor=PALETTE["paper"],
                        color=PALETTE[series.colour],
                        label=series.label,
                    )
                axes.set_xlim(limits)
                axes.set_ylim(limits)
                axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
                axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
                if i > 0:
                    axes.tick_params(labelleft=False)
                else:
                    axes.set_ylabel(ylabel, size=size, color=PALETTE["muted"])
                axes.set_xlabel(xlabel, size=size, color=PALETTE["muted"])
                axes.text(
                    0.97,
                    0.05,
                    panel.note,
                    transform=axes.transAxes,
                    ha="right",
                    size=size,
                    color=PALETTE["muted"],
                )
                _title(axes, panel.title, size)
        handles, labels = figure.axes[0].get_legend_handles_labels() if figure.axes else ([], [])
        if len(handles) > 1:
            figure.legend(
                handles,
                labels,
                loc="upper left",
                bbox_to_anchor=((left - 0.08) / total, 1.0),
                ncols=len(handles),
                frameon=False,
                fontsize=size,
                labelcolor=PALETTE["muted"],
                handletextpad=0.1,
                columnspacing=1.2,
                borderaxespad=0.0,
            )
    return figure


def smooth(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Centred running mean over `share` of the values; at both ends over those that there are."""
    half = int(len(values) * share / 2)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _interval_panel(
    axes: Axes,
    panel: Panel,
    limits: tuple[float, float],
    size: float,
    *,
    zero: bool,
    guide: str | None,
    labels: bool,
) -> None:
    _frame(axes, size)
    low, high = limits
    count = len(panel.points)
    axes.set_ylim(count - 0.5, -0.5)
    # a third of the panel is kept for the numbers at its right edge
    axes.set_xlim(low, high + (high - low) * 0.36)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_bounds(low, high)
    ticks = matplotlib.ticker.MaxNLocator(4, min_n_ticks=3).tick_values(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.set_yticks(range(count), [point.label if labels else "" for point in panel.points])
    axes.tick_params(axis="y", length=0, labelcolor=PALETTE["ink"], pad=6)
    if zero:
        axes.axvline(0.0, color=PALETTE["muted"], linewidth=0.9)
    for point in panel.points:
        if point.label == guide:
            axes.axvline(
                point.estimate, color=PALETTE[point.colour], linewidth=0.8, dashes=(1.5, 2.5)
            )
    for i, point in enumerate(panel.points):
        colour = PALETTE[point.colour]
        if point.low is not None and point.high is not None:
            axes.plot(
                (point.low, point.high),
                (i, i),
                color=colour,
                linewidth=2.0,
                solid_capstyle="round",
            )
        axes.plot(
            point.estimate,
            i,
            marker="o",
            markersize=6.5,
            color=PALETTE["paper"] if point.hollow else colour,
            markeredgecolor=colour,
            markeredgewidth=1.6,
            zorder=3,
        )
        axes.text(
            1.0,
            i,
            number(point.estimate),
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center_baseline",
            size=size,
            color=colour,
        )
    axes.annotate(
        panel.note,
        (1.0, 0.0),
        xycoords="axes fraction",
        xytext=(0, -_XLABEL * 72),
        textcoords="offset points",
        ha="right",
        size=size,
        color=PALETTE["muted"],
    )
    _title(axes, panel.title, size)


def _title(axes: Axes, title: str, size: float) -> None:
    # a long name, such as stimulus_completion+visible, must not run into its neighbour
    size = (size + 0.5) * min(1.0, 24 / max(len(title), 1))
    axes.set_title(title, size=size, color=PALETTE["ink"], loc="left", pad=_TITLE, weight="bold")


def _frame(axes: Axes, size: float) -> None:
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(PALETTE["muted"])
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(
        labelsize=size, color=PALETTE["muted"], labelcolor=PALETTE["muted"], width=0.8, length=3
    )


def _legend(axes: Axes, size: float) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(handles),
            frameon=False,
            fontsize=size,
            labelcolor=PALETTE["ink"],
            borderaxespad=0.2,
            handlelength=1.4,
            columnspacing=1.4,
        )


def _rows(panels: Sequence[Panel], columns: int) -> list[list[Panel]]:
    rows: list[list[Panel]] = []
    for panel in panels:
        if not rows or len(rows[-1]) == columns or rows[-1][0].section != panel.section:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    # a spread of zero still needs an axis
    margin = (high - low) * share or 0.5
    return low - margin, high + margin


def _font_size(columns: int) -> float:
    # a phone shows a figure at its true size, a page enlarges it by about a quarter
    return 8.6 if columns > 1 else 9.4
