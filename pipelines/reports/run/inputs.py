"""Inputs of a report: an experiment, the metrics of its run, the artifacts of its steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DamagedError
from core.text.redact import redact_value
from pipelines.artifacts.artifact import Artifact
from pipelines.artifacts.data_tables import TABLE_STEPS, find_table
from pipelines.experiment.config import Experiment


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportInputs:
    """Inputs of a report: a finished experiment, its metrics and its artifacts."""

    experiment: Experiment
    command: str
    """The command line that makes this run again."""
    metrics: Mapping[str, Any]
    """What `run --json` prints as `metrics`."""
    steps: tuple[Artifact, ...]
    """The output of each finished step, in the order in which they ran."""

    def step(self, name: str) -> Artifact | None:
        """Return the output of a step by its name; None where it did not run."""
        return next((one for one in self.steps if one.kind == name), None)

    def table(self, name: str, steps: Sequence[str] = TABLE_STEPS) -> Path | None:
        """Find a data table in the output of the first of these steps that has it."""
        found = (self.step(step) for step in steps)
        return find_table((step.data for step in found if step is not None), name)


def printed_config(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as its report prints it: what decides it, without credentials."""
    left_out = {"runtime", "sweep", "schedule"}
    config: dict[str, Any] = redact_value(experiment.model_dump(mode="json", exclude=left_out))
    return config


def artifact_file(step: Artifact | None, name: str) -> Path | None:
    """Return a file of a step's output; None where the step or the file is not there."""
    path = step.data / name if step else None
    return path if path and path.is_file() else None


def json_object(text: str, path: Path) -> dict[str, Any]:
    """Parse a JSON object out of the file `path`.

    Raises:
        DamagedError: it is no JSON.
    """
    try:
        value: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedError(
            f"{path}: not readable as JSON ({error}). Delete its artifact and run again.", path
        ) from error
    return value
