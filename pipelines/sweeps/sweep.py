"""Run a sweep: first the steps that its points share, then the points, then the curves."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from core.errors import why_failed
from core.processes.task_pool import local_pool
from core.runtime import Runtime
from evaluators.scaling.curves import SweptRun, scaling_curves
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.refs import Refs
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.sweep_config import ALIASES
from pipelines.experiment.sweep_points import SweepPlan, SweepPoint
from pipelines.reports.sweep.findings import PointSummary, StoreUse, SweepFindings
from pipelines.running.console import Console
from pipelines.running.request import RunRequest
from pipelines.running.runner import Runner
from pipelines.sweeps.points import (
    PointCall,
    PointOutcome,
    PointRunner,
    run_with_pool,
)

LAST_SHARED = "dump"
"""The last step that points can share: what follows depends on the training."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep of one experiment file.

    Attributes:
        plan: its points.
        config: path of the experiment file.
        root: path of the artifact root.
        command: the command line that makes it again, for its page.
    """

    plan: SweepPlan
    config: str
    root: str
    command: str

    @cached_property
    def calls(self) -> tuple[PointCall, ...]:
        """The points, as plain values."""
        return tuple(
            PointCall(
                label=point.label,
                config=self.config,
                root=self.root,
                overrides=point.overrides,
            )
            for point in self.plan.points
        )

    @property
    def runtime(self) -> Runtime:
        """How it is run: the same for all points."""
        return self.plan.points[0].experiment.runtime

    def share(self, console: Console | None = None) -> dict[str, str]:
        """Compute the steps that points share, one after the other, so that none is made twice.

        Two points that need the same step at once would wait for each other; two that need stores
        with common rows would each compute these.

        Returns:
            Why a point failed already, by label.
        """
        failed, root = {}, ArtifactRoot(Path(self.root).expanduser())
        for point in self.plan.points:
            try:
                _compute_shared(point, root, console)
            except Exception as error:  # a point that fails must not end the others
                failed[point.label] = why_failed(error)
        return failed

    def run(
        self, run_points: PointRunner | None = None, console: Console | None = None
    ) -> SweepFindings:
        """Run all points, and collect what they measured.

        A point that fails is told and the others are run; finished steps are hits, so a sweep that
        was interrupted goes on.

        Args:
            run_points: runs the points; None takes the pool of `runtime`.
            console: where lines go.

        Raises:
            DataError: the evaluations have no question in common.
        """
        console = console or Console()
        failed = self.share(console)
        calls = [call for call in self.calls if call.label not in failed]
        outcomes = {
            label: PointOutcome(label=label, error=error) for label, error in failed.items()
        }
        if run_points is None:
            run_points = partial(run_with_pool, pool=local_pool(self.runtime))
        for outcome in run_points(calls):
            outcomes[outcome.label] = outcome
            state = f"failed: {outcome.error}" if outcome.error else "done"
            console.say(f"point {len(outcomes)} of {len(self.calls)}: {outcome.label}  {state}")
        return self.collect([outcomes[call.label] for call in self.calls])

    def collect(self, outcomes: Sequence[PointOutcome]) -> SweepFindings:
        """Collect what the points that did not fail measured.

        Args:
            outcomes: one a point, in order.

        Raises:
            DataError: the evaluations have no question in common.
        """
        refs = Refs(ArtifactRoot(Path(self.root).expanduser()))
        found: list[tuple[SweepPoint, PointOutcome, Mapping[str, Artifact]]] = [
            (point, outcome, refs.resolve_set(point.name))
            for point, outcome in zip(self.plan.points, outcomes, strict=True)
            if outcome.error is None
        ]
        sizes = _sizes([(point, artifacts) for point, _, artifacts in found])
        runs = [
            SweptRun(
                label=point.label,
                ref=point.name,
                setting=point.setting,
                sizes=sizes[point.label],
                seed=point.seed,
                data=artifacts["evaluate"].checked().data,
                tasks=artifacts["tasks"].checked().data if "tasks" in artifacts else None,
                control=artifacts["control"].checked().data if "control" in artifacts else None,
            )
            for point, _, artifacts in found
        ]
        curves = scaling_curves(runs, held_out=self.plan.section.held_out) if runs else []
        return SweepFindings(
            name=self.plan.name,
            command=self.command,
            section=self.plan.section,
            runs=tuple(runs),
            curves=tuple(curves),
            points=tuple(
                _summary(self.config, point, outcome, artifacts)
                for point, outcome, artifacts in found
            ),
            failed=tuple((one.label, one.error) for one in outcomes if one.error is not None),
            stores=_store_use([artifacts for _, _, artifacts in found]),
        )


def _compute_shared(point: SweepPoint, root: ArtifactRoot, console: Console | None) -> None:
    runner = Runner(point.experiment, root, console=console, quiet_hits=True)
    runner.prepare()
    names = [step.name for step in runner.steps]
    if LAST_SHARED not in names:
        return
    with runner.open():
        for name in names[: names.index(LAST_SHARED) + 1]:
            runner.step(name)


def _summary(
    config: str, point: SweepPoint, outcome: PointOutcome, artifacts: Mapping[str, Artifact]
) -> PointSummary:
    counts = artifacts["train"].record["counts"]
    return PointSummary(
        label=point.label,
        ref=point.name,
        made=outcome.made,
        rows=counts["rows"],
        questions=counts["questions"],
        steps=counts["steps"],
        seconds=sum(float(a.record["seconds"]) for a in artifacts.values()),
        command=RunRequest(config=config, root="", overrides=point.overrides).command,
    )


def _sizes(
    found: Sequence[tuple[SweepPoint, Mapping[str, Artifact]]],
) -> dict[str, dict[str, float]]:
    """Return the size of each point along each axis that has sizes, by label.

    The size of an axis over rows is the number of rows that training had, the same for all seeds of
    a setting; that of a model is its number of parameters.
    """
    sizes: dict[str, dict[str, float]] = defaultdict(dict)
    parameters: dict[str, int] = {}
    rows: dict[str, list[int]] = defaultdict(list)
    for point, artifacts in found:
        rows[repr(point.setting)].append(artifacts["train"].record["counts"]["rows"])
    for point, _ in found:
        for axis, value in point.setting.items():
            field = ALIASES.get(axis, axis)
            if field == ALIASES["rows"]:
                sizes[point.label][axis] = statistics.fmean(rows[repr(point.setting)])
            elif field == ALIASES["model"]:
                if value not in parameters:
                    parameters[value] = _count_parameters(point)
                sizes[point.label][axis] = float(parameters[value])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                sizes[point.label][axis] = float(value)
    return {point.label: sizes[point.label] for point, _ in found}


def _count_parameters(point: SweepPoint) -> int:
    from pipelines.steps.shared.step import ExternalInputs
    from trainers.memory import MemoryModel

    return MemoryModel.read(ExternalInputs(point.experiment).model, "float32").count_parameters()


def _store_use(found: Sequence[Mapping[str, Artifact]]) -> StoreUse | None:
    """Return what the target was run on, and what the points read; None without a store."""
    stores = {a["dump"].key: a["dump"] for a in found if "dump" in a}
    if not stores:
        return None
    counts = [store.record["counts"] for store in stores.values()]
    return StoreUse(
        stores=len(stores),
        stored_tokens=sum(int(one["tokens"]) for one in counts),
        forward_tokens=sum(int(one["forward_tokens"]) for one in counts),
    )
