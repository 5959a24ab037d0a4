"""Points with their intervals, in small multiples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.text.wording import number
from pipelines.reports.plots.axes import PAGE, PHONE, TITLE, font_size, frame, padded, title
from pipelines.reports.plots.style import PALETTE, STYLE

XLABEL = 0.44
"""How far under its panel the x label stands, in inches."""


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


def intervals(
    panels: Sequence[Panel],
    *,
    xlabel: str,
    columns: int = 4,
    zero: bool = False,
    guide: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw points with their intervals in small multiples that share the x axis.

    Args:
        panels: filled row by row.
        xlabel: what is measured, with its unit.
        columns: panels that have room side by side; 1 suits a phone.
        zero: draw a line at zero, and keep it in sight.
        guide: label of the point at whose estimate a line is drawn through each panel.
        limits: ends of the x axis, such as `common_limits` of several figures; None for these
            panels' own.
    """
    size = font_size(columns)
    total = PAGE if columns > 1 else PHONE
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
                    (y + tall + TITLE / 72) / height,
                    section,
                    size=size,
                    color=PALETTE["muted"],
                    style="italic",
                )
            figure.text(
                left / total, (y - XLABEL) / height, xlabel, size=size, color=PALETTE["muted"]
            )
            y -= below
    return figure


def common_limits(panels: Sequence[Panel], *, zero: bool = False) -> tuple[float, float]:
    """Return the ends of an x axis that holds every point and interval of `panels`.

    Args:
        panels: what the axis holds.
        zero: whether it holds zero too.
    """
    values = [
        value
        for panel in panels
        for point in panel.points
        for value in (point.estimate, point.low, point.high)
        if value is not None
    ]
    if zero:
        values.append(0.0)
    return padded(min(values, default=0.0), max(values, default=1.0), 0.05)


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
    frame(axes, size)
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
        xytext=(0, -XLABEL * 72),
        textcoords="offset points",
        ha="right",
        size=size,
        color=PALETTE["muted"],
    )
    title(axes, panel.title, size)


def _rows(panels: Sequence[Panel], columns: int) -> list[list[Panel]]:
    rows: list[list[Panel]] = []
    for panel in panels:
        if not rows or len(rows[-1]) == columns or rows[-1][0].section != panel.section:
            rows.append([])
        rows[-1].append(panel)
    return rows
