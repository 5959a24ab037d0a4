"""What a run made or found: its steps, metrics, report and name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.refs import Name
from pipelines.steps.shared.metrics import RunMetrics
from pipelines.steps.shared.step import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRun:
    """A finished step of a run."""

    step: Step
    artifact: Artifact
    cached: bool
    """Whether it was a cache hit."""
    seconds: float
    """Wall time that this run spent on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """A finished run."""

    experiment: str
    root: Path
    steps: tuple[StepRun, ...]
    """The listed steps, in order."""
    metrics: RunMetrics
    """What was measured."""
    report: Path | None
    """The HTML page; None where the run stopped before it."""
    name: Name
    """The numbered version that this run is."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of `run --json`."""
        return {
            "experiment": self.experiment,
            "root": str(self.root),
            "steps": [
                {
                    "step": run.step.name,
                    "key": run.artifact.key,
                    "path": str(run.artifact.path),
                    "cached": run.cached,
                    "seconds": round(run.seconds, 3),
                }
                for run in self.steps
            ],
            "metrics": self.metrics,
            "report": None if self.report is None else str(self.report),
        }
