"""Points of a sweep run as ordinary runs, in this process or in one of their own.

What is asked for and what comes back are plain values, so that a pool of processes or a task of an
orchestrator can stand between the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

from core.errors import LatentQAError, first_line
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

    @property
    def request(self) -> RunRequest:
        """The run that it is."""
        return RunRequest(config=self.config, root=self.root, overrides=self.overrides)


@dataclass(frozen=True, kw_only=True, slots=True)
class PointOutcome:
    """What came of a point."""

    label: str
    made: tuple[str, ...] = ()
    """Steps that were computed; the others were hits."""
    report: str | None = None
    """Its HTML page."""
    error: str | None = None
    """Why it failed, in one line; None where it did not."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**asdict(self), "made": list(self.made)}

    @classmethod
    def of(cls, label: str, result: RunResult) -> PointOutcome:
        """Make the outcome of a finished run."""
        made = tuple(run.step.name for run in result.steps if not run.cached)
        report = None if result.report is None else str(result.report)
        return cls(label=label, made=made, report=report)


PointRunner = Callable[[Sequence[PointCall]], Iterator[PointOutcome]]
"""Runs points in whatever order, and yields their outcomes in the order given."""


def run_point(call: PointCall) -> PointOutcome:
    """Run one point in this process; an error is an outcome too."""
    try:
        return PointOutcome.of(call.label, call.request.run())
    except LatentQAError as error:
        return PointOutcome(label=call.label, error=" ".join(str(error).split()))
    except Exception as error:  # a point that fails must not end the others
        said = f"{type(error).__name__}: {first_line(error)}"
        return PointOutcome(label=call.label, error=said)


def run_point_apart(call: PointCall) -> PointOutcome:
    """Run one point in a process of its own: torch's seeds belong to a whole process."""
    words = [sys.executable, "-m", "latentqa.cli", "run", call.config, "--root", call.root]
    for override in call.overrides:
        words += ["--set", override]
    done = subprocess.run([*words, "--json"], capture_output=True)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode:
        why = said[-1].removeprefix("latentqa: ") if said else f"exit status {done.returncode}"
        return PointOutcome(label=call.label, error=why)
    document = json.loads(done.stdout)
    made = tuple(step["step"] for step in document["steps"] if not step["cached"])
    return PointOutcome(label=call.label, made=made, report=document["report"])


def run_one_by_one(calls: Sequence[PointCall]) -> Iterator[PointOutcome]:
    """Run points one after the other in this process."""
    yield from map(run_point, calls)


def run_in_threads(calls: Sequence[PointCall], workers: int) -> Iterator[PointOutcome]:
    """Run points side by side: a thread for each, which waits for a process of the point's own."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run_point_apart, calls)


def run_in_processes(calls: Sequence[PointCall], workers: int) -> Iterator[PointOutcome]:
    """Run points side by side in a pool of processes, each of which runs several in turn."""
    # a fork of a process that has run torch hangs in its thread pool
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_point, call) for call in calls]
        for call, future in zip(calls, futures, strict=True):
            try:
                yield future.result()
            except Exception as error:  # its process was killed, and the pool with it
                said = f"{type(error).__name__}: {first_line(error)}"
                yield PointOutcome(label=call.label, error=said)
