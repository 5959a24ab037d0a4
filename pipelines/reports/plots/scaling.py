"""Scaling curves: a value with its interval along an axis, and the power law through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.text.wording import count
from pipelines.reports.plots.axes import (
    PAGE,
    PHONE,
    Grid,
    font_size,
    labelled,
    legend_above,
    padded,
    title,
)
from pipelines.reports.plots.style import PALETTE, STYLE

LINE_COLOURS = ("own", "other", "third", "plain", "ink")
"""Colours of the lines of a panel, by turns."""


@dataclass(frozen=True, slots=True)
class FittedLine:
    """A fitted curve with the band of its 95 % interval; all of one length."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScalingLine:
    """Values along an axis under one setting of the others.

    Attributes:
        label: of the legend; empty for none.
        x: places along the axis.
        y: the values.
        ends: lower and upper end of each value's interval; None where it has none.
        held_out: position of the point that the fit has not seen; None for none.
        fit: the fitted curve, or None.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    ends: tuple[tuple[float, float] | None, ...]
    held_out: int | None = None
    fit: FittedLine | None = None


@dataclass(frozen=True, slots=True)
class ScalingPanel:
    """One panel: lines that share axes."""

    title: str
    note: str
    lines: tuple[ScalingLine, ...]


def scaling(
    panels: Sequence[ScalingPanel],
    *,
    xlabel: str,
    ylabel: str,
    ticks: Sequence[tuple[float, str]],
    log: bool,
    columns: int = 3,
    zero: bool = False,
) -> Figure:
    """Draw scaling curves in small multiples that share both axes.

    Args:
        panels: filled row by row.
        xlabel: name of the axis.
        ylabel: what is measured, with its unit.
        ticks: places of the axis that are marked, with their labels.
        log: whether the axis is logarithmic.
        columns: panels that have room side by side; 1 suits a phone.
        zero: draw a line at zero, and keep it in sight.
    """
    # one panel takes half of a page: as wide as two it would be all axis
    columns = max(2, min(columns, len(panels))) if columns > 1 else 1
    size = font_size(columns)
    total = PAGE if columns > 1 else PHONE
    has_labels = any(line.label for panel in panels for line in panel.lines)
    head = 0.32 if has_labels else 0.0
    grid = Grid(columns=columns, width=total, left=0.86, right=0.12, height=2.5, head=head)
    limits = _limits(panels, zero=zero)
    with matplotlib.rc_context(STYLE):
        figure, every = grid.draw(len(panels))
        for i, (axes, panel) in enumerate(zip(every, panels, strict=True)):
            _draw_panel(axes, panel, size, zero=zero)
            _set_axis(axes, ticks, size, log=log)
            axes.set_ylim(limits)
            axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
            axes.set_xlabel(xlabel, size=size, color=PALETTE["muted"])
            if grid.is_first(i):
                axes.set_ylabel(ylabel, size=size, color=PALETTE["muted"])
            else:
                axes.tick_params(labelleft=False)
            title(axes, panel.title, size)
        if has_labels:
            legend_above(figure, labelled(every), size, grid.left / total - 0.01)
    return figure


def _draw_panel(axes: Axes, panel: ScalingPanel, size: float, *, zero: bool) -> None:
    axes.grid(axis="y", color=PALETTE["rule"], linewidth=0.6)
    if zero:
        axes.axhline(0.0, color=PALETTE["muted"], linewidth=0.9)
    for k, line in enumerate(panel.lines):
        colour = PALETTE[LINE_COLOURS[k % len(LINE_COLOURS)]]
        if line.fit is not None:
            axes.fill_between(
                line.fit.x, line.fit.low, line.fit.high, color=colour, alpha=0.14, linewidth=0
            )
            axes.plot(line.fit.x, line.fit.y, color=colour, linewidth=1.6)
        else:
            axes.plot(line.x, line.y, color=colour, linewidth=1.0, alpha=0.6)
        for i, (x, y, ends) in enumerate(zip(line.x, line.y, line.ends, strict=True)):
            if ends is not None:
                axes.plot((x, x), ends, color=colour, linewidth=1.8, solid_capstyle="round")
            axes.plot(
                x,
                y,
                marker="o",
                markersize=6.0,
                linestyle="none",
                color=PALETTE["paper"] if i == line.held_out else colour,
                markeredgecolor=colour,
                markeredgewidth=1.6,
                zorder=3,
                label=line.label if i == 0 and line.label else None,
            )
    axes.text(
        1.0,
        1.02,
        panel.note,
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        size=size,
        color=PALETTE["muted"],
    )


def _set_axis(axes: Axes, ticks: Sequence[tuple[float, str]], size: float, *, log: bool) -> None:
    places = [place for place, _ in ticks]
    if log:
        axes.set_xscale("log")
        spread = max(places) / min(places)
        margin = spread**0.08 if spread > 1 else 1.5
        axes.set_xlim(min(places) / margin, max(places) * margin)
    else:
        axes.set_xlim(*padded(min(places), max(places), 0.1))
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_xticks(places, [label for _, label in ticks], size=size)


def _limits(panels: Sequence[ScalingPanel], *, zero: bool) -> tuple[float, float]:
    """Return the ends of the y axis: what was measured counts, a band may leave the picture."""
    values = [0.0] if zero else []
    for panel in panels:
        for line in panel.lines:
            values += [*line.y, *(end for ends in line.ends if ends for end in ends)]
            values += line.fit.y if line.fit is not None else ()
    return padded(min(values, default=0.0), max(values, default=1.0), 0.08)


def size_ticks(sizes: Sequence[float]) -> list[tuple[float, str]]:
    """Label the sizes of an axis, leaving out labels that would run into one another.

    >>> size_ticks([10, 20, 1500000])
    [(10, '10'), (20, '20'), (1500000, '1.5M')]
    """
    return [(size, _short(size)) for size in sorted(set(sizes))]


def _short(size: float) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            scale = 1e3 if name == "k" else unit
            return f"{size / scale:.3g}{name}"
    return count(size)
