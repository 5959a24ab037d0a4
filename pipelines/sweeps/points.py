"""Points of a sweep run as ordinary runs, in this process or in one of their own.

What is asked for and what comes back are plain values, so that a pool of processes or a task of an
orchestrator can stand between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import why_failed
from core.processes.task_pool import TaskPool
from pipelines.running.request import RunRequest
from pipelines.running.results import RunResult


@dataclass(frozen=True, kw_only=True, slots=True)
class PointCall:
    """One point, as plain values."""

    label: str
    """What the user reads."""
    config: str
    """Path of the experiment file."""
    root: str
    """Path of the artifact root."""
    overrides: tuple[str, ...]
    """`field=value` of its run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PointOutcome:
    """The run, or the error, of a point."""

    label: str
    made: tuple[str, ...] = ()
    """Steps that were computed; the others were hits."""
    report: str | None = None
    """Its HTML page."""
    error: str | None = None
    """Why it failed, in one line; None where it did not."""

    @classmethod
    def of(cls, label: str, result: RunResult) -> PointOutcome:
        """Make the outcome of a finished run."""
        made = tuple(run.step.name for run in result.steps if not run.cached)
        report = None if result.report is None else str(result.report)
        return cls(label=label, made=made, report=report)


PointRunner = Callable[[Sequence[PointCall]], Iterator[PointOutcome]]
"""Runs points, and yields their outcomes as they come."""


def run_point(label: str, config: str, root: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Run one point, the fields of a `PointCall`, in this process; an error is an outcome too.

    Returns:
        the fields of `PointOutcome`.
    """
    try:
        result = RunRequest(config=config, root=root, overrides=overrides).run()
        outcome = PointOutcome.of(label, result)
    except Exception as error:  # a point that fails must not end the others
        outcome = PointOutcome(label=label, error=why_failed(error))
    return asdict(outcome)


def run_with_pool(calls: Sequence[PointCall], pool: TaskPool) -> Iterator[PointOutcome]:
    """Run points as calls of a pool, and yield their outcomes as they come."""
    arguments = [asdict(call) for call in calls]
    labels = [call.label for call in calls]
    for came in pool.run(run_point, arguments, labels):
        if came.error is None:
            yield PointOutcome(**came.value)
        else:  # its process was killed
            yield PointOutcome(label=labels[came.number], error=why_failed(came.error))
