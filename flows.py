"""Prefect flows and tasks: runs that the user's Prefect server shows, schedules and retries.

Prefect shows and schedules runs, retries a step whose endpoint failed and ends one that takes too
long; what is cached, the artifact root alone decides. Every step is a task that takes plain values
and returns the state `Cached` on a hit. Without a configured Prefect API nothing here is imported:
the runner (pipelines/running/runner.py) then runs the steps by itself, with no server at all.

    prefect server start
    PREFECT_API_URL=http://127.0.0.1:4200/api latentqa run CONFIG
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar
from uuid import UUID

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
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate  # noqa: E402
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId  # noqa: E402
from prefect.client.schemas.objects import State, TaskRun  # noqa: E402
from prefect.events import emit_event  # noqa: E402
from prefect.events.clients import PrefectEventsClient  # noqa: E402
from prefect.events.worker import EventsWorker, emit_events_to_cloud  # noqa: E402
from prefect.exceptions import ObjectNotFound  # noqa: E402
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, as_completed  # noqa: E402
from prefect.runtime import flow_run, task_run  # noqa: E402
from prefect.schedules import Cron  # noqa: E402
from prefect.server.schemas.schedules import CronSchedule  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402
from prefect.states import Completed, Crashed  # noqa: E402
from prefect.task_runners import (  # noqa: E402
    ProcessPoolTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)
from prefect.tasks import Task, exponential_backoff  # noqa: E402
from prefect.types.entrypoint import EntrypointType  # noqa: E402
from pydantic import SecretStr  # noqa: E402

from core.errors import ConfigError, EndpointError, LatentQAError  # noqa: E402
from core.redact import redact  # noqa: E402
from core.runtime import Runtime  # noqa: E402
from core.task_pool import (  # noqa: E402
    InProcess,
    TaskOutcome,
    TaskPool,
    call_apart,
    end_with_parent,
)
from pipelines.artifacts.root import ArtifactRoot  # noqa: E402
from pipelines.experiment.config import Experiment, load_experiment  # noqa: E402
from pipelines.reports.sweep.findings import SweepFindings  # noqa: E402
from pipelines.running.prefect_settings import bypass_proxy  # noqa: E402
from pipelines.running.request import RunRequest, hide_credentials, reveal  # noqa: E402
from pipelines.running.results import RunResult, StepRun  # noqa: E402
from pipelines.running.run_locks import clear_killed_runs, hold_run_lock  # noqa: E402
from pipelines.running.runner import Runner  # noqa: E402
from pipelines.running.shown import PICTURE, artifact_key, count_rows, data_uri  # noqa: E402
from pipelines.running.shown_run import current_run, with_fallback  # noqa: E402
from pipelines.running.summary import reading_rows  # noqa: E402
from pipelines.steps.console import Console  # noqa: E402
from pipelines.sweeps.points import PointCall, PointOutcome, run_with_pool  # noqa: E402
from pipelines.sweeps.sweep import Sweep  # noqa: E402
from pipelines.versions.firing import fire  # noqa: E402

PROGRESS_EVERY_S = 5.0
"""Least seconds between two updates of a progress artifact."""
BACKOFF_S = 30.0
"""Seconds before a step whose endpoint failed is tried again; every later wait doubles."""

T = TypeVar("T")


def run(request: RunRequest) -> RunResult:
    """Run an experiment as the flow `latentqa` on the configured Prefect server.

    A server that is lost on the way ends no run: it goes on, and is not shown any more.

    Raises:
        EndpointError: no Prefect server answers.
        LatentQAError: a step cannot be computed.
    """

    def alone() -> RunResult:
        if (finished := current_run().result) is not None:
            return finished
        runner = request.open()
        with runner.open():
            return runner.run()

    def shown() -> RunResult:
        return latentqa(
            config=request.config,
            root=request.root,
            overrides=hide_credentials(request.overrides),
            until=request.until,
            smoke=request.smoke,
        )

    return _with_server(shown, alone)


def run_sweep(sweep: Sweep) -> SweepFindings:
    """Run a sweep as the flow `latentqa-sweep` on the configured Prefect server.

    Raises:
        EndpointError: no Prefect server answers.
        DataError: the evaluations have no question in common.
    """

    def run_points(calls: Sequence[PointCall]) -> Iterator[PointOutcome]:
        documents = latentqa_sweep(
            calls=[
                {**asdict(call), "overrides": hide_credentials(call.overrides)} for call in calls
            ],
            runtime=sweep.runtime.model_dump(mode="json"),
        )
        for document in documents:
            yield PointOutcome(**{**document, "made": tuple(document["made"])})

    return _with_server(lambda: sweep.run(run_points), sweep.run)


def _with_server(shown: Callable[[], T], alone: Callable[[], T]) -> T:
    """Call `shown`, which uses the Prefect server; where that is lost on the way, call `alone`.

    Raises:
        EndpointError: no Prefect server answers.
        LatentQAError: as the calls do.
    """
    prepare_server()
    if not emit_events_to_cloud():
        # its own ten attempts an event would keep a finished run from ending for minutes
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=1)
    logging.raiseExceptions = False  # a log line that a lost server does not take is not printed
    return with_fallback(shown, alone)


@flow(name="latentqa", persist_result=False)
def latentqa(
    config: str,
    root: str = "artifacts",
    overrides: list[str | SecretStr] = [],  # noqa: B006 - never changed; the UI's form shows a list
    until: str | None = None,
    smoke: bool = False,
) -> RunResult:
    """Run a whole experiment, or its steps until one.

    Args:
        config: path of the experiment file.
        root: path of the artifact root.
        overrides: `field=value`; a secret one is not shown.
        until: last step to run; null for all.
        smoke: run it at about eight rows.
    """
    request = RunRequest(
        config=config,
        root=root,
        overrides=reveal(overrides),
        until=until,
        smoke=smoke,
    )
    runner = request.open(Console(log=get_run_logger().info))
    mark_killed_runs(runner.root)
    with hold_run_lock(runner.root, str(flow_run.get_id())):
        result = _run_as_tasks(runner)
    current_run().result = result
    return result


def _run_as_tasks(runner: Runner) -> RunResult:
    """Run every step of a runner as a task of the flow that is running."""
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
                command=runner.command,
                wait_for=[states[name] for name in step.inputs.values()],
                return_state=True,
            )
            for made in _result(state, step.name, runner.experiment.runtime.step_timeout_s):
                runner.adopt(**made)
            states[step.name] = state
        return runner.finish()


@flow(name="latentqa-sweep", persist_result=False)
def latentqa_sweep(
    calls: list[dict[str, Any]], runtime: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run the points of a sweep: each as a flow of its own, or as tasks side by side.

    Args:
        calls: the points, as `PointCall` has them.
        runtime: fields of the `Runtime` that says how many points run at once, and where.
    """
    points = [_point_call(**call) for call in calls]
    pool = task_pool(Runtime.model_validate(runtime or {}))
    if pool.workers == 1:
        return [_run_as_flow(point).to_json() for point in points]
    return [outcome.to_json() for outcome in run_with_pool(points, pool)]


@dataclass(frozen=True)
class PrefectPool:
    """Runs calls as Prefect tasks of the flow or task that is running.

    Another task runner of Prefect's (Dask, Ray) takes the place of these two by one line.

    Attributes:
        workers: calls at once.
        apart: whether threads run the tasks, each of which waits for a process of its own; else a
            pool of processes does.
    """

    workers: int
    apart: bool = False

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
    ) -> Iterator[TaskOutcome]:
        """Call a function once for each set of named arguments, as `TaskPool.run`."""
        name = f"{function.__module__}:{function.__qualname__}"
        numbers: dict[PrefectFuture[Any], int] = {}
        with self._task_runner() as runner:
            for number, (call, label) in enumerate(zip(calls, labels, strict=True)):
                shown = call_function.with_options(name=function.__name__, task_run_name=label)
                arguments = {"function": name, "arguments": dict(call), "apart": self.apart}
                try:
                    numbers[runner.submit(shown, arguments)] = number
                except BrokenExecutor as error:  # a process was killed already
                    yield TaskOutcome(number=number, error=error)
            for future in as_completed(list(numbers)):
                yield _outcome(numbers[future], future)

    def _task_runner(self) -> TaskRunner[PrefectConcurrentFuture[Any]]:
        if self.apart:
            return ThreadPoolTaskRunner(max_workers=self.workers)
        return ProcessPoolTaskRunner(max_workers=self.workers, initializer=end_with_parent)


def task_pool(runtime: Runtime) -> TaskPool:
    """Return the pool that `runtime` chooses, whose calls the Prefect server shows."""
    if runtime.workers == 1:
        return InProcess()
    return PrefectPool(runtime.workers, apart=runtime.task_runner == "threads")


@task(cache_policy=NO_CACHE, persist_result=False)
def call_function(function: str, arguments: dict[str, Any], apart: bool) -> Any:
    """Call a function of a module, `module:name`, with plain arguments."""
    found = resolve_name(function)
    return call_apart(found, arguments) if apart else found(**arguments)


def _outcome(number: int, future: PrefectFuture[Any]) -> TaskOutcome:
    try:
        return TaskOutcome(number=number, value=future.result())
    except Exception as error:  # of the function, of a killed process, or Prefect's own
        if isinstance(error, BrokenExecutor):
            _guarded(lambda: _mark_task_crashed(future.task_run_id))
        return TaskOutcome(number=number, error=error)


def _mark_task_crashed(run: UUID) -> None:
    message = "A process of the pool was killed; what is missing is done again."
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        client.set_task_run_state(run, Crashed(message=message), force=True)


def _run_as_flow(call: PointCall) -> PointOutcome:
    """Run one point as the flow `latentqa`, whose steps the UI shows."""
    try:
        result = latentqa(
            config=call.config, root=call.root, overrides=hide_credentials(call.overrides)
        )
        return PointOutcome.of(call.label, result)
    except LatentQAError as error:
        return PointOutcome(label=call.label, error=" ".join(str(error).split()))
    finally:
        current_run().error = None


def _point_call(
    label: str, config: str, root: str, overrides: Sequence[str | SecretStr]
) -> PointCall:
    return PointCall(label=label, config=config, root=root, overrides=reveal(overrides))


def next_firings(cron: str, timezone: str | None, count: int = 3) -> list[datetime]:
    """Return when a schedule fires next.

    Raises:
        ConfigError: `cron` or `timezone` is none, or no day is ever such a day.
    """
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone or "UTC")
        return [*asyncio.run(schedule.get_dates(count))]
    except ValueError as error:
        why = "never comes" if "next date" in str(error) else "is no time, or no timezone"
        raise ConfigError(
            f"--cron {cron!r} --timezone {timezone or 'UTC'}: {why}; expected minute, hour, day, "
            "month and weekday, such as '0 3 * * *', and a timezone such as Europe/Berlin."
        ) from error


def serve(
    config: str,
    root: str,
    overrides: Sequence[str] = (),
    *,
    cron: str,
    timezone: str | None = None,
) -> None:
    """Make the next version of an experiment by the clock, until the process is stopped.

    Args:
        config: path of the experiment file.
        root: path of the artifact root.
        overrides: `field=value` of every firing.
        cron: minute, hour, day, month and weekday, such as `0 3 * * *`.
        timezone: in which the clock is read, such as `Europe/Berlin`; None is UTC.

    Raises:
        EndpointError: no Prefect server answers.
        ConfigError: an override holds a credential.
    """
    if secret := next((o for o in overrides if redact(o) != o), None):
        raise ConfigError(
            f"--set {redact(secret)}: the server keeps a schedule's parameters, so that they must "
            "hold no credential. Name the environment variable that holds it (api_key_env)."
        )
    prepare_server()
    mark_killed_runs(ArtifactRoot(Path(root)))
    latentqa_schedule.serve(
        name=load_experiment(Path(config), overrides).experiment,
        schedules=[Cron(cron, timezone=timezone)],
        parameters={"config": config, "root": root, "overrides": list(overrides)},
        description=f"The next version of {config}, judged by its gate.",
        entrypoint_type=EntrypointType.MODULE_PATH,
        pause_on_shutdown=False,
        print_starting_message=False,
    )


@flow(name="latentqa-schedule", persist_result=False)
def latentqa_schedule(
    config: str,
    root: str = "artifacts",
    overrides: list[str] = [],  # noqa: B006 - never changed; the UI's form shows a list
) -> State[Any]:
    """Make the next version of an experiment, and judge it.

    Where the gate refuses it, or an error ends the firing, an event says so, on which an automation
    can act (docs/operate.md); the last good version stays.

    Args:
        config: path of the experiment file, which has a section `schedule`.
        root: path of the artifact root.
        overrides: `field=value` of this firing.
    """
    place = ArtifactRoot(Path(root).expanduser())
    mark_killed_runs(place)
    experiment = load_experiment(Path(config), overrides)
    name = experiment.experiment
    console = Console(log=get_run_logger().info)
    words = ["latentqa", "fire", config, *(w for o in overrides for w in ("--set", o))]
    try:
        with hold_run_lock(place, str(flow_run.get_id())):
            fired = fire(
                experiment,
                place,
                due=flow_run.get_scheduled_start_time(),
                command=shlex.join(map(redact, words)),
                run=_run_as_tasks,
                console=console,
            )
    except Exception as error:
        _tell("failed", name, {"error": redact(" ".join(str(error).split()))})
        raise
    if fired.firing is None:
        console.say(f"Skipped: {fired.skipped}.")
        return Completed(name="Skipped", message=fired.skipped, data=None)
    document = fired.firing.to_json()
    _tell(fired.firing.state, name, {**document, "because": fired.refused_because})
    if fired.firing.checks:
        table = [dict(check) for check in fired.firing.checks]
        key = artifact_key(name, "gate")
        _show("table", json.dumps(table), key=key, description=str(fired.page))
    message = " ".join(fired.refused_because) or f"{fired.firing.version}"
    return Completed(name=fired.firing.state.capitalize(), message=message, data=document)


def _tell(state: str, experiment: str, payload: dict[str, Any]) -> None:
    """Emit the event `latentqa.schedule.STATE` about an experiment."""
    resource = {
        "prefect.resource.id": f"latentqa.experiment.{experiment}",
        "prefect.resource.name": experiment,
    }
    _guarded(lambda: emit_event(f"latentqa.schedule.{state}", resource, payload=payload))


def mark_killed_runs(root: ArtifactRoot) -> list[str]:
    """Mark the flow runs that a kill left `Running` as `Crashed`; return their ids.

    Prefect itself would show such a run as running for ever.
    """
    return clear_killed_runs(root, lambda run: _guarded(lambda: _mark_crashed(UUID(run))))


def _mark_crashed(run: UUID) -> bool:
    """Mark a flow run and its task runs as crashed; False where it has ended, or is unknown."""
    message = "Its process was killed; the next run goes on from its finished work."
    with get_client(sync_client=True) as client:
        try:
            found = client.read_flow_run(run)
        except ObjectNotFound:
            return False
        if found.state is not None and found.state.is_final():
            return False
        only = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        for task_run in client.read_task_runs(flow_run_filter=only):
            if task_run.state is not None and not task_run.state.is_final():
                client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
        client.set_flow_run_state(run, Crashed(message=message), force=True)
    return True


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
        found = Experiment.model_validate(experiment)
        runner = Runner(
            found,
            ArtifactRoot(Path(root)),
            command=command,
            console=Console(log=get_run_logger().info),
        )
        runner.pool = task_pool(found.runtime)
        for name, key in finished.items():
            runner.adopt(name, key)
        before = dict(runner.runs)
        key_shown = artifact_key(runner.experiment.experiment, step)
        done = runner.step(step, listener=ProgressArtifact(key_shown, step))
    except Exception as error:
        current_run().error = error
        raise
    current_run().error = None
    _publish(done, key_shown)
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
        self._id: UUID | None = None
        self._told = time.monotonic()  # so a short step shows none

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`, in the unit that `note` names."""
        now = time.monotonic()
        soon = now - self._told < PROGRESS_EVERY_S
        if total <= 0 or (soon and (self._id is None or done < total)):
            return
        self._told = now
        percent = 100.0 * min(done, total) / total
        if self._id is None:
            about = f"{self.step}: {total} {note}".rstrip()
            self._id = _show("progress", percent, key=self.key, description=about)
        else:
            _guarded(lambda: _update_artifact(self._id, percent))


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
        current_run().error = error
        raise error
    found: list[dict[str, Any]] = state.result()
    return found


def _publish(done: StepRun, key: str) -> None:
    """Show in Prefect's UI what a finished step holds."""
    record = done.artifact.record
    if done.step.name == "report":
        page = done.artifact.data / record["counts"]["page"]
        _show("markdown", f"Report: `{page}`", key=key, description="Where the report is")
        picture = done.artifact.data / PICTURE
        if picture.is_file():
            _show("image", data_uri(picture), key=f"{key}-reading", description="Answer loss")
        return
    reading = record["counts"].get("reading")
    rows: list[dict[str, Any]] = (
        list(reading_rows(reading)) if reading else list(count_rows(record["counts"]))
    )
    _show("table", json.dumps(rows), key=key, description=done.artifact.short)


def _show(kind: str, data: str | float, *, key: str, description: str) -> UUID | None:
    """Create an artifact of the task or flow that is running; None where the server is lost.

    Prefect's own functions for it take three times as long.
    """
    task, run = task_run.get_id(), flow_run.get_id()
    shown = ArtifactCreate(
        type=kind,
        key=key,
        description=description,
        data=data,
        task_run_id=UUID(task) if task else None,
        flow_run_id=UUID(run) if run else None,
    )

    def create() -> UUID:
        with get_client(sync_client=True) as client:
            return client.create_artifact(shown).id

    return _guarded(create)


def _update_artifact(artifact: UUID | None, data: float) -> None:
    if artifact is not None:
        with get_client(sync_client=True) as client:
            client.update_artifact(artifact, ArtifactUpdate(data=data))


def _guarded(call: Callable[[], T]) -> T | None:
    """Call Prefect's API, which may be lost."""
    return current_run().guarded(call)


def prepare_server() -> None:
    """Check that the configured Prefect server answers, past any proxy.

    Raises:
        EndpointError: it does not.
    """
    url = PREFECT_API_URL.value() or ""
    bypass_proxy(url)
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise EndpointError(
            f"PREFECT_API_URL={redact(url)}: no Prefect server answers there "
            f"({type(error).__name__}). Start one with `prefect server start`, or unset it."
        )
