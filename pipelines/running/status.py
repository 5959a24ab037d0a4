"""The status of an experiment: how far each step is, and which process computes it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from core.documents.strict_json import load_json
from core.errors import DamagedError
from core.files import read_file
from pipelines.artifacts.artifact import PROGRESS
from pipelines.artifacts.locks import Holder, holder
from pipelines.running.results import StepRun
from pipelines.running.runner import Runner


@dataclass(frozen=True, kw_only=True, slots=True)
class StepStatus:
    """State of one step."""

    step: str
    state: Literal["complete", "running", "stopped", "damaged", "missing", "waits"]
    """`stopped`: begun, and no process is at it; `waits`: an input is not complete."""
    key: str | None = None
    holder: Holder | None = None
    """The process that computes it."""
    progress: dict[str, Any] | None = None
    """`done`, `total` and `note` (the unit), as last written."""
    seconds_left: float | None = None
    """Estimate from the speed so far, in seconds."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**asdict(self), "holder": str(self.holder) if self.holder else None}


def status_of(runner: Runner) -> list[StepStatus]:
    """Return the status of every step of `runner`, in order.

    Raises:
        UserError: something from outside is missing, or an artifact was changed by hand.
    """
    found = []
    for step in runner.steps:
        if any(name not in runner.runs for name in step.inputs.values()):
            found.append(StepStatus(step=step.name, state="waits"))
            continue
        identity = runner.identity(step)
        try:
            artifact = runner.root.lookup(identity)
        except DamagedError:
            found.append(StepStatus(step=step.name, state="damaged", key=identity.key))
            continue
        if artifact is not None:
            runner.runs[step.name] = StepRun(step=step, artifact=artifact, cached=True, seconds=0.0)
            found.append(StepStatus(step=step.name, state="complete", key=identity.key))
            continue
        partial = runner.root.partial(identity)
        who = holder(runner.root.lock(identity.kind, identity.key))
        begun: Literal["stopped", "missing"] = "stopped" if partial.path.exists() else "missing"
        progress = _progress(partial.path / PROGRESS)
        found.append(
            StepStatus(
                step=step.name,
                state="running" if who else begun,
                key=identity.key,
                holder=who,
                progress=progress and {k: progress[k] for k in ("done", "total", "note")},
                seconds_left=_left(progress) if who and progress else None,
            )
        )
    return found


def _progress(path: Path) -> dict[str, Any] | None:
    try:
        value = load_json(read_file(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _left(progress: dict[str, Any]) -> float | None:
    made = int(progress["done"] - progress["first"])
    spent = float(progress["updated"] - progress["started"])
    if made <= 0 or spent <= 0:
        return None
    left = float(progress["total"] - progress["done"]) * spent / made
    return max(0.0, round(left - (time.time() - float(progress["updated"])), 1))
