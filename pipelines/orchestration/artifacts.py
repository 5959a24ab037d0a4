"""What Prefect's UI shows of a run: progress, counts, metrics and the report's picture."""

from __future__ import annotations

import base64
import json
import time
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.events import emit_event
from prefect.runtime import flow_run, task_run

from pipelines.artifacts.cache_key import leaves
from pipelines.orchestration.shown_run import current_run, guarded
from pipelines.running.results import StepRun
from pipelines.running.summary import reading_rows

PROGRESS_EVERY_S = 5.0
"""Least seconds between two updates of a progress artifact."""
PICTURE = "reading.png"
"""The report's loss panel, where it has one."""


def artifact_key(experiment: str, step: str) -> str:
    """Return a key of lower case letters, digits and dashes, as Prefect wants it."""
    return f"latentqa-{experiment}-{step}".replace("_", "-")


class ProgressArtifact:
    """A progress listener that shows in Prefect's UI how far a step is.

    Args:
        key: the key of the step's artifacts.
        step: name of the step.
    """

    def __init__(self, key: str, step: str) -> None:
        self.key = f"{key}-progress"
        self.step = step
        self._shown = False
        self._id: UUID | None = None
        self._told = time.monotonic()  # so a short step shows none

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`, in the unit that `note` names."""
        now = time.monotonic()
        soon = now - self._told < PROGRESS_EVERY_S
        if total <= 0 or (soon and (not self._shown or done < total)):
            return
        self._told = now
        percent = 100.0 * min(done, total) / total
        if not self._shown:
            about = f"{self.step}: {total} {note}".rstrip()
            created = _artifact("progress", percent, key=self.key, description=about)
            current_run().sender.send(partial(self._create, created))
        else:
            current_run().sender.send(partial(self._update, percent))
        self._shown = True

    def _create(self, created: ArtifactCreate, client: SyncPrefectClient) -> None:
        self._id = client.create_artifact(created).id

    def _update(self, percent: float, client: SyncPrefectClient) -> None:
        if self._id is not None:
            client.update_artifact(self._id, ArtifactUpdate(data=percent))


def publish_step(done: StepRun, key: str) -> None:
    """Show in Prefect's UI what a finished step holds."""
    record = done.artifact.record
    if done.step.name == "report":
        page = done.artifact.data / record["counts"]["page"]
        show_artifact("markdown", f"Report: `{page}`", key=key, description="Where the report is")
        picture = done.artifact.data / PICTURE
        if picture.is_file():
            address = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
            show_artifact("image", address, key=f"{key}-reading", description="Answer loss")
        return
    counts = record["counts"]
    rows: list[dict[str, Any]]
    if counts.get("reading"):
        rows = [*reading_rows(counts["reading"])]
    else:
        rows = [{"what": name, "value": value} for name, value in leaves(counts) if value != {}]
    show_artifact("table", json.dumps(rows), key=key, description=done.artifact.short)


def show_artifact(kind: str, data: str | float, *, key: str, description: str) -> None:
    """Have an artifact created of the task or flow that is running, without waiting for it."""
    created = _artifact(kind, data, key=key, description=description)
    current_run().sender.send(lambda client: client.create_artifact(created))


def _artifact(kind: str, data: str | float, *, key: str, description: str) -> ArtifactCreate:
    """Describe an artifact of the task or flow that is running."""
    task, run = task_run.get_id(), flow_run.get_id()
    return ArtifactCreate(
        type=kind,
        key=key,
        description=description,
        data=data,
        task_run_id=UUID(task) if task else None,
        flow_run_id=UUID(run) if run else None,
    )


def emit_schedule_event(state: str, experiment: str, payload: dict[str, Any]) -> None:
    """Emit the event `latentqa.schedule.STATE` about an experiment."""
    resource = {
        "prefect.resource.id": f"latentqa.experiment.{experiment}",
        "prefect.resource.name": experiment,
    }
    guarded(lambda: emit_event(f"latentqa.schedule.{state}", resource, payload=payload))
