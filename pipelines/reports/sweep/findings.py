"""Findings of a sweep: the values that its page and its tables show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluators.scaling.curves import Curve, SweptRun, point_rows
from pipelines.experiment.sweep_config import SweepSection


@dataclass(frozen=True, kw_only=True, slots=True)
class PointSummary:
    """A finished point: its settings, REF and numbers."""

    label: str
    ref: str
    """The REF of its run."""
    made: tuple[str, ...]
    """Steps that were computed now; the others were hits."""
    rows: int
    """Training rows."""
    questions: int
    """Questions trained on, a repeated one counted each time."""
    steps: int
    """Optimiser steps."""
    seconds: float
    """Wall time of all its steps, whenever they were made."""
    command: str
    """The run that it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreUse:
    """What the target was run on for a sweep."""

    stores: int
    stored_tokens: int
    """Tokens of all stores, one that stands in several counted in each."""
    forward_tokens: int
    """Tokens that the target was run on to make them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepFindings:
    """A finished sweep; points that failed are told apart."""

    name: str
    command: str
    section: SweepSection
    runs: tuple[SweptRun, ...]
    curves: tuple[Curve, ...]
    points: tuple[PointSummary, ...]
    failed: tuple[tuple[str, str], ...]
    """Label and reason of each failed point."""
    stores: StoreUse | None

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(self.section.vary)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run, split, view and metric."""
        return [] if not self.runs else [_flat(row, self.axes) for row in point_rows(self.runs)]

    def settings(self) -> list[dict[str, Any]]:
        """Return a row for each point of each curve: its estimate over controls and seeds."""
        return [
            {
                **_about(curve),
                "value": _cell(point.value),
                "size": point.size,
                "seeds": point.seeds,
                "estimate": point.estimate.estimate,
                "low": point.estimate.low,
                "high": point.estimate.high,
                "n": point.estimate.n,
            }
            for curve in self.curves
            for point in curve.points
        ]

    def fits(self) -> list[dict[str, Any]]:
        """Return a row for each power law, and what it says of the size held out."""
        return [_fit_row(curve) for curve in self.curves if curve.fit is not None]


def _fit_row(curve: Curve) -> dict[str, Any]:
    assert curve.fit is not None
    law, ends, judged = curve.fit.law, curve.fit.exponent or (None, None), curve.held_out
    row: dict[str, Any] = {
        **_about(curve),
        "law": str(law),
        "scale": law.scale,
        "exponent": law.exponent,
        "exponent_low": ends[0],
        "exponent_high": ends[1],
        "limit": law.limit,
    }
    names: tuple[str, ...] = ("held_out", "predicted", "predicted_low", "predicted_high")
    names += ("measured", "difference", "difference_low", "difference_high", "inside")
    if judged is None:
        return row | dict.fromkeys(names)
    predicted, difference = judged.predicted, judged.difference
    values: tuple[Any, ...] = (
        judged.size,
        *(predicted.estimate, predicted.low, predicted.high, judged.measured.estimate),
        *(difference.estimate, difference.low, difference.high, judged.inside),
    )
    return row | dict(zip(names, values, strict=True))


def _about(curve: Curve) -> dict[str, Any]:
    return {
        "split": curve.split,
        "view": curve.view,
        "metric": curve.metric.name,
        "axis": curve.axis,
        "others": json.dumps(curve.group, ensure_ascii=False) if curve.group else "",
    }


def _flat(row: Mapping[str, Any], axes: tuple[str, ...]) -> dict[str, Any]:
    about = {name: row[name] for name in ("run", "label", "seed")}
    setting = {axis: _cell(row["setting"][axis]) for axis in axes}
    sizes = {f"{axis}_size": row["sizes"].get(axis) for axis in axes}
    rest = ("split", "view", "metric", "controls", "estimate")
    return {**about, **setting, **sizes, **{name: row[name] for name in rest}}


def _cell(value: Any) -> str | float | bool | None:
    plain = isinstance(value, str | int | float | bool) or value is None
    return value if plain else json.dumps(value, ensure_ascii=False)
