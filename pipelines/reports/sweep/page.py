"""The page of a sweep with its figures, and its tables as Parquet and CSV beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.files import write_bytes
from core.text.redact import redact
from core.text.text_tables import csv_bytes
from evaluators.scaling.curves import MIN_CONTROLS, Curve
from evaluators.scaling.shared_values import METRICS, ScalingMetric
from pipelines.experiment.sweep_config import ALIASES
from pipelines.experiment.sweep_points import shown
from pipelines.reports import plots
from pipelines.reports.pages.render import render_page
from pipelines.reports.plots.page_figure import PageFigure, make_page_figure, write_figures
from pipelines.reports.plots.scaling import size_ticks
from pipelines.reports.sweep.findings import SweepFindings

PAGE = "sweep.html"
"""Name of the page's file."""
AXIS_TITLES = {
    "train.max_rows": "training rows",
    "train.questions_per_row": "questions a row",
    "train.lora.rank": "LoRA rank",
    "train.decoder.read_layer": "read layer",
    "train.epochs": "epochs",
    "dump.model": "parameters of the target",
}
"""Titles of the axes that do not go by their own names."""
_PLACES = 40
"""Places at which a fitted curve is drawn."""


def write_sweep(found: SweepFindings, out: Path) -> Path:
    """Write the page of a sweep.

    Args:
        found: what is shown.
        out: folder for `sweep.html`, the tables `rows` (a row a training, Parquet and CSV),
            `settings.csv` and `fits.csv`, and `figures/`, each as SVG and PNG, its data as CSV.

    Returns:
        The path of `sweep.html`.

    Raises:
        StorageError: the disk is full or read-only.
    """
    rows = found.rows()
    figures = [
        (axis, metric, _figure(found, axis, metric))
        for axis in found.axes
        for metric in METRICS
        if any(curve.axis == axis and curve.metric is metric for curve in found.curves)
    ]
    write_figures([figure for _, _, figure in figures], out)
    write_bytes(out / "rows.csv", csv_bytes(rows))
    write_bytes(out / "rows.parquet", _parquet(rows))
    write_bytes(out / "settings.csv", csv_bytes(found.settings()))
    write_bytes(out / "fits.csv", csv_bytes(found.fits()))
    page = out / PAGE
    text = render_page(
        "sweep/sweep.html",
        filters={"shown": shown, "redact": redact},
        found=found,
        figures=figures,
        axis_title=axis_title,
        curves_of=lambda axis, metric: [
            curve for curve in found.curves if (curve.axis, curve.metric) == (axis, metric)
        ],
        group=_group_words,
        judged=[curve for curve in found.curves if curve.held_out is not None],
        short=[curve for curve in found.curves if _fewer_rows(curve)],
        least=MIN_CONTROLS,
        targets="model" in {*found.axes} or "dump.model" in found.axes,
    )
    write_bytes(page, text.encode())
    return page


def axis_title(axis: str) -> str:
    """Return the title of an axis."""
    return AXIS_TITLES.get(ALIASES.get(axis, axis), axis)


def _figure(found: SweepFindings, axis: str, metric: ScalingMetric) -> PageFigure:
    """Draw one metric along one axis: a panel for each split and view."""
    curves = [one for one in found.curves if one.axis == axis and one.metric is metric]
    log = all(point.size for curve in curves for point in curve.points)
    values = list(dict.fromkeys(shown(point.value) for one in curves for point in one.points))
    sizes = [point.size for curve in curves for point in curve.points if point.size]
    ticks = size_ticks(sizes) if log else [(float(i), value) for i, value in enumerate(values)]
    panels = [
        plots.ScalingPanel(
            f"{view}",
            f"{split} · n = {curves_here[0].controls}",
            tuple(_line(curve, values, log=log) for curve in curves_here),
        )
        for (split, view) in dict.fromkeys((one.split, one.view) for one in curves)
        for curves_here in [[one for one in curves if (one.split, one.view) == (split, view)]]
    ]
    draw = partial(
        plots.scaling,
        panels,
        xlabel=axis_title(axis),
        ylabel=metric.unit,
        ticks=ticks,
        log=log,
        zero="gain" in metric.name,
    )
    name = f"{axis.replace('.', '-').replace('_', '-')}-{metric.name.replace('_', '-')}"
    rows = [row for row in found.settings() if (row["axis"], row["metric"]) == (axis, metric.name)]
    return make_page_figure(name, f"{metric.title} by {axis_title(axis)}", draw, rows)


def _line(curve: Curve, values: Sequence[str], *, log: bool) -> plots.ScalingLine:
    x = tuple(
        float(point.size) if log and point.size else float(values.index(shown(point.value)))
        for point in curve.points
    )
    held_out = None
    if curve.held_out is not None:
        held_out = max(range(len(x)), key=lambda i: x[i])
    estimates = [point.estimate for point in curve.points]
    return plots.ScalingLine(
        label=_group_words(curve),
        x=x,
        y=tuple(one.estimate or 0.0 for one in estimates),
        ends=tuple(
            None if one.low is None or one.high is None else (one.low, one.high)
            for one in estimates
        ),
        held_out=held_out,
        fit=_fitted(curve, x) if log else None,
    )


def _fitted(curve: Curve, x: Sequence[float]) -> plots.FittedLine | None:
    if curve.fit is None:
        return None
    places = [float(place) for place in np.geomspace(min(x), max(x), _PLACES)]
    found = [curve.fit.predict(place) for place in places]
    return plots.FittedLine(
        x=tuple(places),
        y=tuple(value for value, _, _ in found),
        low=tuple(value if low is None else low for value, low, _ in found),
        high=tuple(value if high is None else high for value, _, high in found),
    )


def _group_words(curve: Curve) -> str:
    return ", ".join(f"{axis} {shown(value)}" for axis, value in curve.group.items())


def _fewer_rows(curve: Curve) -> bool:
    """Return whether a setting asked for more rows than there were."""
    if ALIASES.get(curve.axis, curve.axis) != ALIASES["rows"]:
        return False
    return any(
        isinstance(point.value, int) and point.size is not None and point.size < point.value
        for point in curve.points
    )


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """Write rows as Parquet; a column of several types holds their text."""
    columns: dict[str, list[Any]] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        mixed = len(kinds) > 1 and not kinds <= {int, float}
        columns[name] = [None if v is None else shown(v) for v in values] if mixed else values
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    content: bytes = buffer.getvalue().to_pybytes()
    return content
