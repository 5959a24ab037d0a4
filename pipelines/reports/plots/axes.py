"""What plots share: named points, small multiples, font sizes, frames and legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.reports.plots.style import PALETTE

PAGE, PHONE = 10.0, 4.4
"""Width of a figure in inches, for a page and for a phone."""
TITLE = 7.0
"""How far above its panel a title stands, in points."""


@dataclass(frozen=True, slots=True)
class Series:
    """A named set of (x, y) points.

    Attributes:
        ends: lower and upper end of each point's interval, None where it has none; empty where no
            point has one.
    """

    label: str
    x: tuple[int, ...] | tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "own"
    ends: tuple[tuple[float, float] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesPanel:
    """One panel of small multiples: series that share axes.

    Attributes:
        level: where a dashed line crosses the panel, such as chance; None for no line.
    """

    title: str
    note: str
    series: tuple[Series, ...]
    level: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Small multiples of one size, filled row by row; lengths in inches.

    Attributes:
        columns: panels side by side.
        width: of the whole figure.
        left: room for the labels of the y axis.
        gap: between two panels.
        height: of a panel; None for a square one.
        head: room above all panels, for a legend.
    """

    columns: int
    width: float
    left: float
    right: float = 0.1
    gap: float = 0.3
    height: float | None = None
    head: float = 0.0

    def draw(self, count: int) -> tuple[Figure, list[Axes]]:
        """Make a figure with the axes of `count` panels, each framed."""
        top, below = 0.42, 0.62
        wide = (self.width - self.left - self.right - self.gap * (self.columns - 1)) / self.columns
        tall = wide if self.height is None else self.height
        height = -(-count // self.columns) * (tall + top + below) + self.head
        figure = Figure(figsize=(self.width, height))
        for number in range(count):
            row, column = divmod(number, self.columns)
            x = self.left + column * (wide + self.gap)
            y = height - self.head - (row + 1) * (tall + top + below) + below
            box = (x / self.width, y / height, wide / self.width, tall / height)
            frame(figure.add_axes(box), font_size(self.columns))
        return figure, list(figure.axes)

    def is_first(self, number: int) -> bool:
        """Tell whether a panel, counted from 0, begins a row."""
        return number % self.columns == 0


def legend_above(
    figure: Figure, found: Mapping[str, Artist], size: float, x: float, *, most: int = 5
) -> None:
    """Draw one legend for all panels at the top, from `x` on, a share of the figure's width."""
    figure.legend(
        list(found.values()),
        list(found),
        loc="upper left",
        bbox_to_anchor=(x, 1.0),
        ncols=min(len(found), most),
        frameon=False,
        fontsize=size,
        labelcolor=PALETTE["muted"],
        handletextpad=0.1,
        columnspacing=1.2,
        borderaxespad=0.0,
    )


def labelled(every: Sequence[Axes]) -> dict[str, Artist]:
    """Return the legend handle of each label in the panels."""
    found: dict[str, Artist] = {}
    for axes in every:
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    return found


def frame(axes: Axes, size: float) -> None:
    """Draw two thin sides, quiet ticks and no background."""
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


def title(axes: Axes, title: str, size: float) -> None:
    """Set a panel's title, small enough to stay clear of its neighbour."""
    # a long name, such as stimulus_completion+visible, must not run into its neighbour
    size = (size + 0.5) * min(1.0, 24 / max(len(title), 1))
    axes.set_title(title, size=size, color=PALETTE["ink"], loc="left", pad=TITLE, weight="bold")


def legend(axes: Axes, size: float) -> None:
    """Draw a legend above the panel where anything has a label."""
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


def padded(low: float, high: float, share: float) -> tuple[float, float]:
    """Return the ends of an axis, `share` of its length away from the values."""
    # a spread of zero still needs an axis
    margin = (high - low) * share or 0.5
    return low - margin, high + margin


def font_size(columns: int) -> float:
    """Return the size of text in points for a number of columns of panels."""
    # a phone shows a figure at its true size, a page enlarges it by about a quarter
    return 8.6 if columns > 1 else 9.4
