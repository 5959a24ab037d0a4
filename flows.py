"""Prefect flows: one for a whole experiment, and one that ends with each step.

Prefect shows, schedules and records runs; it decides nothing. Every step is a task that asks the
artifact root, and returns the state `Cached` on a hit. Works with no server (a temporary one ends
with the run) and, with `PREFECT_API_URL` set, on one that has a UI:

    prefect server start
    PREFECT_API_URL=http://127.0.0.1:4200/api latentqa run CONFIG
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Before the import of prefect, and never over a user's own setting.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # our own lines are what a person sees; the API still gets every log line
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

from prefect import flow, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.logging.handlers import APILogHandler  # noqa: E402
from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: E402
from prefect.states import Completed, State  # noqa: E402

from core.errors import EndpointError  # noqa: E402
from pipelines.running.request import RunRequest  # noqa: E402
from pipelines.running.runner import Runner, RunResult, StepRun  # noqa: E402
from pipelines.running.summary import reading_rows  # noqa: E402
from pipelines.running.temporary_server import temporary_server  # noqa: E402

PROGRESS_EVERY = 5.0
"""Least seconds between two updates of a progress artifact."""

PICTURE = "reading.png"
"""The report's loss panel, where it has one."""


def run(request: RunRequest) -> RunResult:
    """Run an experiment as the flow `latentqa`, on the user's Prefect server or a temporary one.

    Raises:
        EndpointError: PREFECT_API_URL leads to no Prefect server.
        LatentQAError: a step cannot be made.
    """
    with _server():
        return latentqa(
            config=request.config,
            root=request.root,
            overrides=list(request.overrides),
            until=request.until,
            smoke=request.smoke,
        )


@flow(name="latentqa", persist_result=False)
def latentqa(
    config: str,
    root: str = "artifacts",
    overrides: list[str] | None = None,
    until: str | None = None,
    smoke: bool = False,
) -> RunResult:
    """A whole experiment, or its steps until one."""
    request = RunRequest(
        config=config, root=root, overrides=tuple(overrides or ()), until=until, smoke=smoke
    )
    runner = request.open()
    runner.prepare()
    with runner.open():
        for step in runner.steps:
            state = make.with_options(name=step.name)(runner, step.name, return_state=True)
            state.result()  # raises what the step raised
        return runner.finish()


def _flow_until(step: str) -> Any:
    @flow(name=f"latentqa-{step}", persist_result=False)
    def until_step(
        config: str, root: str = "artifacts", overrides: list[str] | None = None
    ) -> RunResult:
        return latentqa.fn(config=config, root=root, overrides=overrides, until=step)

    return until_step


conversations = _flow_until("conversations")
questions = _flow_until("questions")
complete = _flow_until("complete")
complete = _flow_until("complete")
dump = _flow_until("dump")
train = _flow_until("train")
evaluate = _flow_until("evaluate")


@task(task_run_name="{name}", retries=0, cache_policy=NO_CACHE, persist_result=False)
def make(runner: Runner, name: str) -> State | str:
    """Find or make one step's output; the state is `Cached` on a hit."""
    key = _artifact_key(runner.experiment.experiment, name)
    done = runner.step(name, listener=ProgressArtifact(key, name))
    _publish(done, key)
    if done.cached:
        return Completed(
            name="Cached", message=f"hit {done.artifact.short}", data=done.artifact.short
        )
    return done.artifact.short


class ProgressArtifact:
    """A listener that shows in Prefect's UI how far a step is.

    Args:
        key: the artifact's key.
        step: name of the step.
    """

    def __init__(self, key: str, step: str) -> None:
        self.key = f"{key}-progress"
        self.step = step
        self._id: Any = None
        self._told = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if total <= 0 or (now - self._told < PROGRESS_EVERY and done < total):
            return
        self._told = now
        percent = 100.0 * min(done, total) / total
        if self._id is None:
            self._id = create_progress_artifact(
                progress=percent, key=self.key, description=f"{self.step}: {total} {note}".rstrip()
            )
        else:
            update_progress_artifact(artifact_id=self._id, progress=percent)


def _publish(done: StepRun, key: str) -> None:
    """Show what a finished step holds in Prefect's UI."""
    record = done.artifact.record
    if done.step.name == "report":
        page = done.artifact.data / record["counts"]["page"]
        create_markdown_artifact(
            markdown=f"Report: `{page}`", key=key, description="Where the report is"
        )
        picture = done.artifact.data / PICTURE
        if picture.is_file():
            create_image_artifact(
                image_url=_data_uri(picture), key=f"{key}-reading", description="Answer loss"
            )
        return
    reading = record["counts"].get("reading")
    rows: list[dict[str, Any]] = (
        list(reading_rows(reading)) if reading else list(_rows(record["counts"]))
    )
    create_table_artifact(table=rows, key=key, description=done.artifact.short)


def _rows(counts: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    for name, value in counts.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield {"what": prefix + name, "value": value}


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def _artifact_key(experiment: str, step: str) -> str:
    """Prefect's artifact keys have lower case letters, digits and dashes."""
    return f"latentqa-{experiment}-{step}".replace("_", "-")


@contextlib.contextmanager
def _server() -> Iterator[None]:
    """Reach the user's Prefect server, or keep a temporary one while the body runs."""
    url = PREFECT_API_URL.value()
    if url:
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
        if error is not None:
            raise EndpointError(
                f"PREFECT_API_URL={url}: no Prefect server answers there "
                f"({type(error).__name__}). Start one with `prefect server start`, or unset it."
            )
        yield
        return
    with temporary_server() as own, temporary_settings({PREFECT_API_URL: own}):
        try:
            yield
        finally:
            APILogHandler().flush()  # or the last log lines meet a server that is gone
