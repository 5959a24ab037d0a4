"""The training curve."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from pipelines.reports.plots.axes import PAGE, PHONE, Series, font_size, frame, legend
from pipelines.reports.plots.style import PALETTE, STYLE


def training_curve(loss: Series, validation: Series, *, best: int | None, columns: int) -> Figure:
    """Draw training loss, raw and smoothed, and validation `right` over optimiser steps.

    Args:
        loss: training loss by step, nats per token.
        validation: validation `right` by step, nats per token.
        best: step of the checkpoint that was kept.
        columns: above 1 for a page's width, 1 for a phone's.
    """
    size = font_size(columns)
    total, height = (PAGE, 3.6) if columns > 1 else (PHONE, 3.4)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(total, height))
        axes = figure.add_axes(
            (0.62 / total, 0.55 / height, (total - 0.8) / total, (height - 0.95) / height)
        )
        frame(axes, size)
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
        legend(axes, size)
    return figure


def smooth(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Average over a centred window of `share` of the values, narrower at both ends."""
    half = int(len(values) * share / 2)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
