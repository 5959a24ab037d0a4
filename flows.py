"""Prefect flows and tasks: runs that the user's Prefect server shows, schedules and retries.

Prefect shows and schedules runs, retries a step whose endpoint failed and ends one that takes too
long; what is cached, the artifact root alone decides. Every step is a task that takes plain values
and returns the state `Cached` on a hit. Without a configured Prefect API nothing here is imported:
the runner (pipelines/running/runner.py) then runs the steps by itself, with no server at all.

    prefect server start
    PREFECT_API_URL=http://127.0.0.1:4200/api latentqa run CONFIG
"""

from __future__ import annotations

import base64
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

# Before the import of prefect, and never over a user's own setting.
DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # our own lines are what a person sees; the API still gets every log line
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # a server that is gone holds a run up for seconds, not for a minute a call
    "PREFECT_CLIENT_MAX_RETRIES": "1",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

from prefect import flow, get_run_logger, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.objects import State, TaskRun  # noqa: E402
from prefect.events.clients import PrefectEventsClient  # noqa: E402
from prefect.events.worker import EventsWorker, emit_events_to_cloud  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402
from prefect.states import Completed  # noqa: E402
from prefect.tasks import Task, exponential_backoff  # noqa: E402
from pydantic import SecretStr  # noqa: E402

from core.errors import ConfigError, EndpointError, LatentQAError  # noqa: E402
from core.redact import redact  # noqa: E402
from pipelines.artifacts.root import ArtifactRoot  # noqa: E402
from pipelines.experiment.config import Experiment  # noqa: E402
from pipelines.running.request import RunRequest  # noqa: E402
from pipelines.running.results import RunResult, StepRun  # noqa: E402
from pipelines.running.runner import Runner  # noqa: E402
from pipelines.running.summary import reading_rows  # noqa: E402
from pipelines.steps.console import Console  # noqa: E402

PROGRESS_EVERY_S = 5.0
"""Least seconds between two updates of a progress artifact."""
BACKOFF_S = 30.0
"""Seconds before a step whose endpoint failed is tried again; every later wait doubles."""
PICTURE = "reading.png"
"""The report's loss panel, where it has one."""

T = TypeVar("T")


@dataclass
class _Run:
    """What has come of the run in this process, whatever becomes of its Prefect server."""

    result: RunResult | None = None
    error: Exception | None = None
    """Of our own code; an error of Prefect's own ends no run."""
    server_lost: bool = False


_RUN: ContextVar[_Run] = ContextVar("run")


def run(request: RunRequest) -> RunResult:
    """Run an experiment as the flow `latentqa` on the configured Prefect server.

    A server that is lost on the way ends no run: it goes on, and is not shown any more.

    Raises:
        EndpointError: no Prefect server answers.
        LatentQAError: a step cannot be computed.
    """
    _check_server()
    if not emit_events_to_cloud():
        # its own ten attempts an event would keep a finished run from ending for minutes
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=1)
    logging.raiseExceptions = False  # a log line that a lost server does not take is not printed
    state = _Run()
    token = _RUN.set(state)
    try:
        return latentqa(
            config=request.config,
            root=request.root,
            # Prefect keeps parameters and shows them: one with a credential is shown as asterisks
            overrides=[o if redact(o) == o else SecretStr(o) for o in request.overrides],
            until=request.until,
            smoke=request.smoke,
        )
    except LatentQAError:
        raise
    except Exception as error:
        if state.error is not None:
            raise state.error from None
        _say_lost(error)
        if state.result is not None:
            return state.result
        runner = request.open()
        with runner.open():
            return runner.run()
    finally:
        _RUN.reset(token)


@flow(name="latentqa", persist_result=False)
def latentqa(
    config: str,
    root: str = "artifacts",
    overrides: list[str | SecretStr] | None = None,
    until: str | None = None,
    smoke: bool = False,
) -> RunResult:
    """Run a whole experiment, or its steps until one."""
    request = RunRequest(
        config=config,
        root=root,
        overrides=tuple(
            o.get_secret_value() if isinstance(o, SecretStr) else o for o in overrides or ()
        ),
        until=until,
        smoke=smoke,
    )
    runner = request.open(Console(log=get_run_logger().info))
    runner.prepare()
    document = runner.experiment.model_dump(mode="json")
    states: dict[str, State[Any]] = {}
    with runner.open():
        for step in runner.steps:
            state = _task_of(runner, step.name)(
                experiment=document,
                root=str(runner.root.path),
                step=step.name,
                finished={name: made.artifact.key for name, made in runner.runs.items()},
                command=request.command,
                wait_for=[states[name] for name in step.inputs.values()],
                return_state=True,
            )
            for made in _result(state, step.name, runner.experiment.runtime.step_timeout_s):
                runner.adopt(**made)
            states[step.name] = state
        result = runner.finish()
    _current_run().result = result
    return result


def _is_endpoint_error(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a step failed because an endpoint did, which may be well a little later."""
    try:
        state.result()
    except EndpointError as error:
        return error.transient
    except Exception:
        return False
    return False


@task(
    task_run_name="{step}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=_is_endpoint_error,
)
def compute_step(
    experiment: dict[str, Any],
    root: str,
    step: str,
    finished: Mapping[str, str],
    command: str,
) -> State[Any] | list[dict[str, Any]]:
    """Find or compute one step's output; the state is `Cached` on a hit.

    Args:
        experiment: the whole experiment.
        root: path of the artifact root.
        step: name of the step.
        finished: whole key of the artifact of each finished step, by step.
        command: the command line that makes this run again, for the report.

    Returns:
        The steps that were found or computed, inputs that had to be recomputed included: `step`,
        `key`, `cached`, `seconds` of each.
    """
    try:
        runner = Runner(
            Experiment.model_validate(experiment),
            ArtifactRoot(Path(root)),
            command=command,
            console=Console(log=get_run_logger().info),
        )
        for name, key in finished.items():
            runner.adopt(name, key)
        before = dict(runner.runs)
        artifact_key = _artifact_key(runner.experiment.experiment, step)
        done = runner.step(step, listener=ProgressArtifact(artifact_key, step))
    except Exception as error:
        _current_run().error = error
        raise
    _current_run().error = None
    _publish(done, artifact_key)
    made = [
        {
            "step": name,
            "key": one.artifact.key,
            "cached": one.cached,
            "seconds": one.seconds,
        }
        for name, one in runner.runs.items()
        if before.get(name) is not one
    ]
    if done.cached:
        return Completed(name="Cached", message=f"hit {done.artifact.short}", data=made)
    return made


class ProgressArtifact:
    """A progress listener that shows in Prefect's UI how far a step is.

    Args:
        key: the key of the step's artifacts.
        step: name of the step.
    """

    def __init__(self, key: str, step: str) -> None:
        self.key = f"{key}-progress"
        self.step = step
        self._id: Any = None
        self._told = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`, in the unit that `note` names."""
        now = time.monotonic()
        if total <= 0 or (now - self._told < PROGRESS_EVERY_S and done < total):
            return
        self._told = now
        percent = 100.0 * min(done, total) / total
        if self._id is None:
            about = f"{self.step}: {total} {note}".rstrip()
            self._id = _guarded(
                lambda: create_progress_artifact(progress=percent, key=self.key, description=about)
            )
        else:
            _guarded(lambda: update_progress_artifact(artifact_id=self._id, progress=percent))


def _task_of(runner: Runner, step: str) -> Task[..., Any]:
    runtime = runner.experiment.runtime
    return compute_step.with_options(
        name=step,
        timeout_seconds=runtime.step_timeout_s,
        retries=runtime.step_retries,
        retry_delay_seconds=exponential_backoff(BACKOFF_S),
        retry_jitter_factor=0.25,
    )


def _result(state: State[Any], step: str, timeout_s: float | None) -> list[dict[str, Any]]:
    """Return what a task returned, or raise what it raised."""
    if state.name == "TimedOut":
        error = ConfigError(
            f"{step}: took longer than runtime.step_timeout_s, {timeout_s:g} s. Finished work is "
            "kept: allow more, and run again."
        )
        _current_run().error = error
        raise error
    found: list[dict[str, Any]] = state.result()
    return found


def _publish(done: StepRun, key: str) -> None:
    """Show in Prefect's UI what a finished step holds."""
    record = done.artifact.record
    if done.step.name == "report":
        page = done.artifact.data / record["counts"]["page"]
        _guarded(
            lambda: create_markdown_artifact(
                markdown=f"Report: `{page}`", key=key, description="Where the report is"
            )
        )
        picture = done.artifact.data / PICTURE
        if picture.is_file():
            _guarded(
                lambda: create_image_artifact(
                    image_url=_data_uri(picture), key=f"{key}-reading", description="Answer loss"
                )
            )
        return
    reading = record["counts"].get("reading")
    rows: list[dict[str, Any]] = (
        list(reading_rows(reading)) if reading else list(_rows(record["counts"]))
    )
    _guarded(lambda: create_table_artifact(table=rows, key=key, description=done.artifact.short))


def _guarded(call: Callable[[], T]) -> T | None:
    """Call Prefect's API; a server that is lost is reported once, and then no longer called."""
    state = _current_run()
    if state.server_lost:
        return None
    try:
        return call()
    except Exception as error:  # whatever the client or the server raises: a run needs neither
        _say_lost(error)
        return None


def _say_lost(error: Exception) -> None:
    state = _current_run()
    if not state.server_lost:
        state.server_lost = True
        print(
            f"Prefect at {redact(PREFECT_API_URL.value() or '')} is lost "
            f"({type(error).__name__}); the run goes on and is not shown there any more.",
            file=sys.stderr,
            flush=True,
        )


def _current_run() -> _Run:
    """Return the state of the run; a new one where Prefect itself has started the flow."""
    try:
        return _RUN.get()
    except LookupError:
        state = _Run()
        _RUN.set(state)
        return state


def _rows(counts: Mapping[str, Any], prefix: str = "") -> Iterator[dict[str, Any]]:
    for name, value in counts.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield {"what": prefix + name, "value": value}


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def _artifact_key(experiment: str, step: str) -> str:
    """Return a key of lower case letters, digits and dashes, as Prefect wants it."""
    return f"latentqa-{experiment}-{step}".replace("_", "-")


def _check_server() -> None:
    """Check that the configured Prefect server answers.

    Raises:
        EndpointError: it does not.
    """
    url = PREFECT_API_URL.value() or ""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        for name in ("NO_PROXY", "no_proxy"):  # a proxy does not lead to this machine
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise EndpointError(
            f"PREFECT_API_URL={redact(url)}: no Prefect server answers there "
            f"({type(error).__name__}). Start one with `prefect server start`, or unset it."
        )
