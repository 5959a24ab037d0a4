"""Prefect flows: an experiment, a sweep and a schedule, which the user's server shows and starts.

Each step is a task (pipelines/orchestration/step_tasks.py). Without a configured Prefect API
nothing here is imported: the runner (pipelines/running/runner.py) then runs the steps by itself.

    prefect server start
    PREFECT_API_URL=http://127.0.0.1:4200/api latentqa run CONFIG
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pipelines.orchestration  # noqa: F401 - sets Prefect's defaults before prefect is imported

# isort: split
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.schedules import Cron
from prefect.server.schemas.schedules import CronSchedule
from prefect.states import Completed
from prefect.types.entrypoint import EntrypointType
from pydantic import SecretStr

from core.errors import ConfigError, LatentQAError, why_failed
from core.runtime import Runtime
from core.text.redact import redact, redact_override
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import load_experiment
from pipelines.orchestration.artifacts import artifact_key, emit_schedule_event, show_artifact
from pipelines.orchestration.prefect_pool import task_pool
from pipelines.orchestration.server import (
    hold_run_lock,
    mark_killed_runs,
    prepare_server,
    with_server,
)
from pipelines.orchestration.shown_run import current_run
from pipelines.orchestration.step_tasks import run_as_tasks
from pipelines.reports.sweep.findings import SweepFindings
from pipelines.running.console import Console
from pipelines.running.request import RunRequest, command_line, hide_credentials, reveal
from pipelines.running.results import RunResult
from pipelines.sweeps.points import PointCall, PointOutcome, run_with_pool
from pipelines.sweeps.sweep import Sweep
from pipelines.versions.firing import fire


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

    return with_server(shown, alone)


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
            yield PointOutcome(**document)

    return with_server(lambda: sweep.run(run_points), sweep.run)


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
    with hold_run_lock(runner.root, str(flow_run.get_id())), closing(current_run().sender):
        result = run_as_tasks(runner)
    current_run().result = result
    return result


@flow(name="latentqa-sweep", persist_result=False)
def latentqa_sweep(
    calls: list[dict[str, Any]], runtime: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run the points of a sweep: each as a flow of its own, or as tasks side by side.

    Args:
        calls: the points, as `PointCall` has them.
        runtime: fields of the `Runtime` that says how many points run at once, and where.
    """
    points = [PointCall(**{**call, "overrides": reveal(call["overrides"])}) for call in calls]
    pool = task_pool(Runtime.model_validate(runtime or {}))
    if pool.workers == 1:
        return [asdict(_run_as_flow(point)) for point in points]
    return [asdict(outcome) for outcome in run_with_pool(points, pool)]


def _run_as_flow(call: PointCall) -> PointOutcome:
    """Run one point as the flow `latentqa`, whose steps the UI shows."""
    try:
        result = latentqa(
            config=call.config, root=call.root, overrides=hide_credentials(call.overrides)
        )
        return PointOutcome.of(call.label, result)
    except Exception as error:
        if not isinstance(error, LatentQAError) and current_run().error is None:
            raise  # of a server that is lost
        return PointOutcome(label=call.label, error=why_failed(error))
    finally:
        current_run().error = None


def next_firings(cron: str, timezone: str | None, count: int = 3) -> list[datetime]:
    """Return when a schedule fires next.

    Raises:
        ConfigError: `cron` or `timezone` is none, or no day is ever such a day.
    """
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone or "UTC")
        return [*asyncio.run(schedule.get_dates(count))]
    except ValueError as error:
        why = "never comes" if "next date" in str(error) else "not a valid time or time zone"
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
    if secret := next((o for o in overrides if redact_override(o) != o), None):
        raise ConfigError(
            f"--set {redact_override(secret)}: the server stores a schedule's parameters, so they "
            "must not contain a credential. Name the environment variable that holds it "
            "(api_key_env)."
        )
    prepare_server()
    mark_killed_runs(ArtifactRoot(Path(root)))
    latentqa_schedule.serve(
        name=load_experiment(Path(config), overrides).experiment,
        schedules=[Cron(cron, timezone=timezone)],
        parameters={"config": config, "root": root, "overrides": list(overrides)},
        description=f"The next version of {config}, checked by its gate.",
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
    try:
        with hold_run_lock(place, str(flow_run.get_id())), closing(current_run().sender):
            fired = fire(
                experiment,
                place,
                due=flow_run.get_scheduled_start_time(),
                command=command_line("fire", config, overrides=overrides),
                run=run_as_tasks,
                console=console,
            )
    except Exception as error:
        emit_schedule_event("failed", name, {"error": redact(" ".join(str(error).split()))})
        raise
    if fired.firing is None:
        console.say(f"Skipped: {fired.skipped}.")
        return Completed(name="Skipped", message=fired.skipped, data=None)
    document = fired.firing.to_json()
    emit_schedule_event(fired.firing.state, name, {**document, "because": fired.refused_because})
    if fired.firing.checks:
        table = [dict(check) for check in fired.firing.checks]
        key = artifact_key(name, "gate")
        with closing(current_run().sender):
            show_artifact("table", json.dumps(table), key=key, description=str(fired.page))
    message = " ".join(fired.refused_because) or f"{fired.firing.version}"
    return Completed(name=fired.firing.state.capitalize(), message=message, data=document)
