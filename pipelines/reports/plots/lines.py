"""Lines over whole numbers, such as blocks, in small multiples."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from pipelines.reports.plots.axes import PAGE, PHONE, Grid, Series, SeriesPanel, font_size, title
from pipelines.reports.plots.style import PALETTE, STYLE

_MARKERS = ("o", "s", "^", "D", "v", "P")
_ASIDE = 2.5
"""How far the intervals of two lines of a panel stand apart, in points."""


def lines(
    panels: Sequence[SeriesPanel],
    *,
    xlabel: str,
    ylabel: str,
    columns: int = 3,
    shares: bool = True,
) -> Figure:
    """Draw lines in small multiples.

    Args:
        panels: filled row by row.
        xlabel: what is on the x axis.
        ylabel: what is on the y axis.
        columns: panels side by side; 1 suits a phone.
        shares: whether y is a fraction, so that all panels show 0 to 1; otherwise each has a range
            of its own, with a line at zero.
    """
    size = font_size(columns)
    grid = Grid(
        columns=columns,
        width=PAGE if columns > 1 else PHONE,
        left=0.6,
        gap=0.35,
        height=1.7,
        head=0.4,
    )
    furthest = max((x for panel in panels for one in panel.series for x in one.x), default=1)
    names = list(dict.fromkeys(one.label for panel in panels for one in panel.series))

    with matplotlib.rc_context(STYLE):
        figure, every = grid.draw(len(panels))
        for i, (axes, panel) in enumerate(zip(every, panels, strict=True)):
            axes.set_xlim(-0.5, furthest + 0.5)
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
            axes.set_ylim(*((-0.03, 1.03) if shares else _range_with_zero(panel)))
            axes.grid(axis="y", color=PALETTE["rule"], linewidth=0.6)
            if not shares:
                axes.axhline(0.0, color=PALETTE["muted"], linewidth=0.9)
            if panel.level is not None:
                axes.axhline(panel.level, color=PALETTE["muted"], linewidth=0.9, dashes=(3, 3))
            for k, series in enumerate(panel.series):
                marker = _MARKERS[names.index(series.label) % len(_MARKERS)]
                _draw_series(axes, series, marker, k - (len(panel.series) - 1) / 2)
            axes.set_xlabel(f"{xlabel} ({panel.note})", size=size, color=PALETTE["muted"])
            if grid.is_first(i):
                axes.set_ylabel(ylabel, size=size, color=PALETTE["muted"])
            title(axes, panel.title, size)
        _shared_legend(figure, names, panels, size)
    return figure


def _range_with_zero(panel: SeriesPanel) -> tuple[float, float]:
    """Return the range of a panel's values and zero, with a margin."""
    values = [0.0, *(y for series in panel.series for y in series.y)]
    margin = 0.06 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _draw_series(axes: Axes, series: Series, marker: str, place: float) -> None:
    """Draw a line with its intervals, moved aside by `place` so that intervals stand apart."""
    aside = place * _ASIDE if any(series.ends) else 0.0
    moved = offset_copy(axes.transData, axes.get_figure(root=True), x=aside, units="points")
    colour = PALETTE[series.colour]
    for x, ends in zip(series.x, series.ends, strict=False):
        if ends is not None:
            axes.plot((x, x), ends, color=colour, linewidth=1.4, alpha=0.6, transform=moved)
    axes.plot(
        series.x,
        series.y,
        color=colour,
        linewidth=1.4,
        marker=marker,
        markersize=4.5,
        label=series.label,
        transform=moved,
    )


def _shared_legend(
    figure: Figure, names: Sequence[str], panels: Sequence[SeriesPanel], size: float
) -> None:
    """Draw one legend for all panels, at the top."""
    colours = {one.label: one.colour for panel in panels for one in panel.series}
    handles = [
        Line2D(
            [],
            [],
            color=PALETTE[colours[name]],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=4.5,
            linewidth=1.4,
            label=name,
        )
        for i, name in enumerate(names)
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=min(len(handles), 4),
        frameon=False,
        fontsize=size,
        labelcolor=PALETTE["ink"],
        handlelength=1.6,
        columnspacing=1.4,
    )
