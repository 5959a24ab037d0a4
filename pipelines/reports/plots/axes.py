"""What plots share: named points, widths, font sizes and frames."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from pipelines.reports.plots.style import PALETTE

PAGE, PHONE = 10.0, 4.4
"""Width of a figure in inches, for a page and for a phone."""
TITLE = 7.0
"""How far above its panel a title stands, in points."""


@dataclass(frozen=True, slots=True)
class Series:
    """A named set of (x, y) points."""

    label: str
    x: tuple[int, ...] | tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "own"


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
