"""A heat map: one number a cell, zero at the middle of the colours."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from core.text.wording import number, shortened
from pipelines.reports.plots.axes import PAGE, font_size, frame
from pipelines.reports.plots.style import PALETTE, STYLE

_CELL_HEIGHT = 0.34
"""Height of a row, in inches."""
_NUMBERS = 16
"""Most columns in whose cells a number has room."""
DIVERGING = LinearSegmentedColormap.from_list(
    "reading", [PALETTE["other"], PALETTE["paper"], PALETTE["own"]]
)
"""Below zero, zero, above zero."""


def heat(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    ylabel: str,
    unit: str,
    colour_limit: float,
    marked: Sequence[int] = (),
) -> Figure:
    """Draw cells coloured by their numbers, in one strength at equal distances from zero.

    Args:
        values: [rows, columns]; the first row is drawn at the bottom.
        rows, columns: their names.
        ylabel: what the rows are.
        unit: of the numbers.
        colour_limit: number at which colours are strongest, on both sides of zero; above 0.
        marked: rows whose names are set in bold.
    """
    size = font_size(2)
    longest = max(map(len, columns))
    left, right, top = 0.75, 0.95, 0.32
    below = 0.35 + min(longest, 24) * size * 0.0082
    height = top + below + _CELL_HEIGHT * len(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PAGE, height))
        box = (left / PAGE, below / height, (PAGE - left - right) / PAGE)
        axes = figure.add_axes((*box, _CELL_HEIGHT * len(rows) / height))
        frame(axes, size)
        # cells as shapes, not as an image: an SVG stays sharp, and the same bytes everywhere
        mesh = axes.pcolormesh(
            values,
            cmap=DIVERGING,
            vmin=-colour_limit,
            vmax=colour_limit,
            edgecolors=PALETTE["paper"],
            linewidth=0.6,
        )
        axes.set_xticks(
            np.arange(len(columns)) + 0.5, [shortened(name, most=24) for name in columns]
        )
        axes.tick_params(axis="x", rotation=90, length=0)
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
        axes.tick_params(axis="y", length=0)
        for i in marked:
            label = axes.get_yticklabels()[i]
            label.set_fontweight("bold")
            label.set_color(PALETTE["ink"])
        axes.set_ylabel(ylabel, size=size, color=PALETTE["muted"])
        if len(columns) <= _NUMBERS:
            for (row, column), value in np.ndenumerate(values):
                strong = abs(value) > 0.6 * colour_limit
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    number(float(value)),
                    ha="center",
                    va="center_baseline",
                    size=size - 1,
                    color=PALETTE["paper" if strong else "ink"],
                )
        bar_box = ((PAGE - right + 0.15) / PAGE, below / height, 0.12 / PAGE)
        bar = figure.colorbar(
            mesh, cax=figure.add_axes((*bar_box, _CELL_HEIGHT * len(rows) / height))
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=size - 1, labelcolor=PALETTE["muted"], length=0)
        # above the cells: beside the bar of a few rows there is no room for it
        end, above = 1 - 0.1 / PAGE, 1 - 0.05 / height
        muted = PALETTE["muted"]
        figure.text(end, above, unit, ha="right", va="top", size=size, color=muted)
    return figure
