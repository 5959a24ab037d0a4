"""One dot a unit under two conditions, in small multiples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure

from pipelines.reports.plots.axes import PAGE, PHONE, Series, font_size, frame, padded, title
from pipelines.reports.plots.style import PALETTE, STYLE

_AREA = 4.2**2
"""Area of a dot, in square points."""


@dataclass(frozen=True, slots=True)
class ScatterPanel:
    """One panel of `paired`: its series share axes."""

    title: str
    note: str
    series: tuple[Series, ...]


def paired(
    panels: Sequence[ScatterPanel],
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
    left, right, gap, top, below = 0.62, 0.1, 0.3, 0.42, 0.62
    side = (total - left - right - gap * (columns - 1)) / columns
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    legend = 0.3 if any(len(panel.series) > 1 for panel in panels) else 0.0
    height = len(rows) * (side + top + below) + legend
    x_limits, y_limits = _limits(panels, same_axes=same_axes)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(total, height))
        for j, row in enumerate(rows):
            y = height - legend - (j + 1) * (side + top + below) + below
            for i, panel in enumerate(row):
                x = left + i * (side + gap)
                axes = figure.add_axes((x / total, y / height, side / total, side / height))
                frame(axes, size)
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
                title(axes, panel.title, size)
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


def _limits(
    panels: Sequence[ScatterPanel], *, same_axes: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of the x and of the y axis, which all panels share."""
    x = [value for panel in panels for series in panel.series for value in series.x]
    y = [value for panel in panels for series in panel.series for value in series.y]
    x, y = (x + y, x + y) if same_axes else ([*x, 0.0], [*y, 0.0])
    first, second = (padded(min(own, default=0.0), max(own, default=1.0), 0.06) for own in (x, y))
    return first, second
