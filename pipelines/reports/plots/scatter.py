"""One dot a unit under two conditions, in small multiples."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from pipelines.reports.plots.axes import (
    PAGE,
    PHONE,
    Grid,
    SeriesPanel,
    font_size,
    labelled,
    legend_above,
    padded,
    title,
)
from pipelines.reports.plots.style import PALETTE, STYLE

_AREA = 4.2**2
"""Area of a dot, in square points."""


def paired(
    panels: Sequence[SeriesPanel],
    *,
    xlabel: str,
    ylabel: str,
    columns: int = 4,
    same_axes: bool = True,
) -> Figure:
    """Draw a dot for each unit under two conditions, with the line where both are equal.

    Args:
        panels: filled row by row; all share both axes.
        xlabel: the condition on the x axis.
        ylabel: the condition on the y axis.
        columns: panels that have room side by side; at most 2 suit a phone.
        same_axes: whether both are one quantity; else each axis has its own limits, and the line is
            where y is zero.
    """
    size = font_size(columns // 2)
    total = PAGE if columns > 2 else PHONE
    head = 0.3 if any(len(panel.series) > 1 for panel in panels) else 0.0
    grid = Grid(columns=columns, width=total, left=0.62, head=head)
    x_limits, y_limits = _limits(panels, same_axes=same_axes)

    with matplotlib.rc_context(STYLE):
        figure, every = grid.draw(len(panels))
        for i, (axes, panel) in enumerate(zip(every, panels, strict=True)):
            line = y_limits if same_axes else (0.0, 0.0)
            axes.plot(x_limits, line, color=PALETTE["rule"], linewidth=1.0)
            for series in panel.series:
                axes.scatter(
                    series.x,
                    series.y,
                    s=_AREA,
                    marker="o",
                    linewidths=0.5,
                    edgecolors=PALETTE["paper"],
                    color=PALETTE[series.colour],
                    label=series.label,
                    zorder=2,
                )
            axes.set_xlim(x_limits)
            axes.set_ylim(y_limits)
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            axes.tick_params(labelsize=size, labelleft=grid.is_first(i))
            if grid.is_first(i):
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
            title(axes, panel.title, size)
        found = labelled(every)
        if len(found) > 1:
            legend_above(figure, found, size, (grid.left - 0.08) / total, most=len(found))
    return figure


def _limits(
    panels: Sequence[SeriesPanel], *, same_axes: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of the x and of the y axis, which all panels share."""
    x = [value for panel in panels for series in panel.series for value in series.x]
    y = [value for panel in panels for series in panel.series for value in series.y]
    x, y = (x + y, x + y) if same_axes else ([*x, 0.0], [*y, 0.0])
    first, second = (padded(min(own, default=0.0), max(own, default=1.0), 0.06) for own in (x, y))
    return first, second
