"""Plots of reports and maps; each file draws one kind of plot.

Every function takes plain values and returns a matplotlib figure that no global state knows of;
`pipelines.reports.plots.style` turns it into SVG and PNG. Colours are names in its `PALETTE`.
"""

from __future__ import annotations

from pipelines.reports.plots.axes import Series, SeriesPanel
from pipelines.reports.plots.curve import smooth, training_curve
from pipelines.reports.plots.heat import heat
from pipelines.reports.plots.interval_plot import Panel, Point, common_limits, intervals
from pipelines.reports.plots.lines import lines
from pipelines.reports.plots.scaling import FittedLine, ScalingLine, ScalingPanel, scaling
from pipelines.reports.plots.scatter import paired

__all__ = [
    "FittedLine",
    "Panel",
    "Point",
    "ScalingLine",
    "ScalingPanel",
    "Series",
    "SeriesPanel",
    "common_limits",
    "heat",
    "intervals",
    "lines",
    "paired",
    "scaling",
    "smooth",
    "training_curve",
]
