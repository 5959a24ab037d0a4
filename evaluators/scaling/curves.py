"""Scaling curves with intervals over controls and seeds, power laws, and how they extrapolate.

The largest size of an axis is left out of the fit and predicted from the others. All sizes share
their controls, so controls are resampled once for all of them, and so are seeds.

Shapes: P trainings, R seeds of a setting, C controls, N sizes, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.records.estimate import Estimate
from evaluators.scaling.shared_values import (
    METRICS,
    ScalingMetric,
    SharedValues,
    read_shared_steering,
    read_shared_tasks,
    read_shared_values,
)
from evaluators.stats.estimates import Resampling, pooled
from evaluators.stats.intervals import percentile_interval
from evaluators.stats.power_law import LEAST_SIZES, FittedCurve, fit_curve

_BOOTSTRAP = Resampling()
"""Bootstrap of an estimate."""
FIT_SAMPLES = 1000
"""Bootstrap samples that a power law is fitted to."""
MIN_CONTROLS = _BOOTSTRAP.min_controls
"""Controls under which an estimate is given without an interval."""
SIZES_FOR_HELD_OUT = LEAST_SIZES + 1
"""Sizes from which the largest can be left out of the fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweptRun:
    """One training of one setting, evaluated."""

    label: str
    """What the user reads: `rows=40 seed=1`."""
    ref: str
    """The REF of the run."""
    setting: Mapping[str, Any]
    """Value by axis."""
    sizes: Mapping[str, float]
    """Size by axis, for the axes that have one: the rows that were there, the target's
    parameters, or the value itself."""
    seed: int
    data: Path
    """Output of its evaluation."""
    tasks: Path | None = None
    """Output of its reading tasks; None without any."""
    control: Path | None = None
    """Output of its steering; None without any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """A point of a scaling curve: one setting and its estimate."""

    value: Any
    """Value of the axis."""
    size: float | None
    """Its size; None for an axis without sizes."""
    estimate: Estimate
    seeds: int
    """Trainings behind it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extrapolation:
    """The largest size, predicted from the others."""

    size: float
    predicted: Estimate
    """What the fit says there, with its interval."""
    measured: Estimate
    difference: Estimate
    """Measured less predicted, paired by control and seed."""

    @property
    def inside(self) -> bool | None:
        """Whether the measured value lies in the interval of the prediction; None without one."""
        low, high, measured = self.predicted.low, self.predicted.high, self.measured.estimate
        if low is None or high is None or measured is None:
            return None
        return low <= measured <= high


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A metric along one axis, the other axes at one setting."""

    split: str
    view: str
    metric: ScalingMetric
    axis: str
    group: Mapping[str, Any]
    """Values of the other axes."""
    points: tuple[CurvePoint, ...]
    controls: int
    questions: int
    fit: FittedCurve | None
    """The power law through the sizes, without the one held out; None where there are too few."""
    held_out: Extrapolation | None


def scaling_curves(runs: Sequence[SweptRun], *, held_out: bool) -> list[Curve]:
    """Compute the curves of a sweep along each of its axes.

    Args:
        runs: of the whole sweep, those of one setting one after the other.
        held_out: whether the largest of at least four sizes is left out of the fit.

    Raises:
        DataError: the runs share no question.
    """
    curves = []
    for view in _read_shared(runs):
        for metric in METRICS:
            if metric.name in view.values:
                for axis, group, members in _series(runs):
                    curves.append(_curve(view, metric, axis, group, members, held_out=held_out))
    return curves


def point_rows(runs: Sequence[SweptRun]) -> Iterator[dict[str, Any]]:
    """Yield a row for each run, split, view, metric and control, on the questions all share."""
    for view in _read_shared(runs):
        for metric in METRICS:
            for run, values_C in zip(runs, view.values.get(metric.name, ()), strict=False):
                yield {
                    "run": run.ref,
                    "label": run.label,
                    "seed": run.seed,
                    "setting": dict(run.setting),
                    "sizes": dict(run.sizes),
                    "split": view.split,
                    "view": view.view,
                    "metric": metric.name,
                    "controls": len(values_C),
                    "estimate": float(values_C.mean()),
                }


def _read_shared(runs: Sequence[SweptRun]) -> list[SharedValues]:
    tasks = [run.tasks for run in runs if run.tasks is not None]
    shared = read_shared_values([run.data for run in runs])
    if len(tasks) == len(runs):
        shared += read_shared_tasks(tasks)
    steered = [run.control for run in runs if run.control is not None]
    if len(steered) == len(runs):
        shared += read_shared_steering(steered)
    return shared


Members = list[tuple[Any, float | None, list[int]]]
"""Of each setting along an axis its value, its size, and the positions of its runs."""


def _series(runs: Sequence[SweptRun]) -> Iterator[tuple[str, dict[str, Any], Members]]:
    """Yield (axis, values of the other axes, members) of every line that is drawn."""
    axes = list(runs[0].setting)
    for axis in axes:
        lines: list[tuple[dict[str, Any], Members]] = []
        for position, run in enumerate(runs):
            group = {name: value for name, value in run.setting.items() if name != axis}
            line = next((members for own, members in lines if own == group), None)
            if line is None:
                line = []
                lines.append((group, line))
            value = run.setting[axis]
            known = next((m for m in line if m[0] == value), None)
            if known is None:
                line.append((value, run.sizes.get(axis), [position]))
            else:
                known[2].append(position)
        for group, members in lines:
            if len(members) > 1:
                if all(size is not None for _, size, _ in members):
                    members.sort(key=lambda member: member[1] or 0.0)
                yield axis, group, members


def _curve(
    view: SharedValues,
    metric: ScalingMetric,
    axis: str,
    group: Mapping[str, Any],
    members: Members,
    *,
    held_out: bool,
) -> Curve:
    values_PC = view.values[metric.name]
    pools = [[values_PC[p][:, None] for p in positions] for _, _, positions in members]
    estimates = [_estimate(pool) for pool in pools]
    points = tuple(
        CurvePoint(value=value, size=size, estimate=estimate, seeds=len(positions))
        for (value, size, positions), estimate in zip(members, estimates, strict=True)
    )
    fit, judged = _fit(points, pools, metric, held_out=held_out)
    return Curve(
        split=view.split,
        view=view.view,
        metric=metric,
        axis=axis,
        group=group,
        points=points,
        controls=values_PC.shape[1],
        questions=view.questions,
        fit=fit,
        held_out=judged,
    )


def _estimate(pool: Sequence[np.ndarray]) -> Estimate:
    return pooled(pool, lambda means: means[..., 0], _BOOTSTRAP)


def _fit(
    points: Sequence[CurvePoint],
    pools: Sequence[Sequence[np.ndarray]],
    metric: ScalingMetric,
    *,
    held_out: bool,
) -> tuple[FittedCurve | None, Extrapolation | None]:
    """Fit the power law of a curve, and predict its largest size where that is held out."""
    sizes: list[float] = []
    kept: list[int] = []
    for i, point in enumerate(points):
        if point.size is not None and point.size > 0 and point.size not in sizes:
            sizes.append(point.size)
            kept.append(i)
    if len(kept) < LEAST_SIZES or any(point.size is None for point in points):
        return None, None
    last = kept[-1] if held_out and len(kept) >= SIZES_FOR_HELD_OUT else None
    fitted = [i for i in kept if i != last]
    n = len(pools[0][0])
    means_N = np.array([np.mean(pools[i]) for i in range(len(points))])
    drawn_SN = _draw(pools) if n >= MIN_CONTROLS else None
    fit = fit_curve(
        np.array([points[i].size for i in fitted]),
        means_N[fitted],
        None if drawn_SN is None else drawn_SN[:, fitted],
        n=n,
        positive=metric.is_loss,
    )
    if last is None:
        return fit, None
    return fit, _judge(points[last], fit, None if drawn_SN is None else drawn_SN[:, last], n)


def _judge(
    point: CurvePoint, fit: FittedCurve, drawn_S: np.ndarray | None, n: int
) -> Extrapolation:
    assert point.size is not None
    assert point.estimate.estimate is not None
    value, low, high = fit.predict(point.size)
    away = point.estimate.estimate - value
    ends: tuple[float | None, float | None] = (None, None)
    if drawn_S is not None and fit.laws is not None:
        ends = percentile_interval(away, drawn_S - fit.laws(point.size), n)
    return Extrapolation(
        size=point.size,
        predicted=Estimate(estimate=value, low=low, high=high, n=n),
        measured=point.estimate,
        difference=Estimate(estimate=away, low=ends[0], high=ends[1], n=n),
    )


def _draw(pools: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Resample controls and seeds: the mean of each setting in each sample, [S, N].

    A setting that lacks a seed, because a run failed, is resampled over those that it has.
    """
    n = len(pools[0][0])
    seeds = max(len(pool) for pool in pools)
    generator = np.random.default_rng(0)
    controls_SC = generator.multinomial(n, np.full(n, 1 / n), size=FIT_SAMPLES) / n
    seeds_SR = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=FIT_SAMPLES)
    columns = []
    for pool in pools:
        values_RC = np.stack([run[:, 0] for run in pool])
        weights_SR = seeds_SR[:, : len(pool)].astype(float)
        weights_SR[weights_SR.sum(1) == 0] = 1.0
        weights_SR /= weights_SR.sum(1, keepdims=True)
        columns.append(np.einsum("sr,rc,sc->s", weights_SR, values_RC, controls_SC))
    return np.stack(columns, 1)
