"""Every step of an experiment as a Prefect task, which takes plain values.

Prefect retries a step whose endpoint failed and ends one that takes too long. The artifact root
alone decides what is cached; on a hit a task returns the state `Cached`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.tasks import Task, exponential_backoff
from prefect.utilities.annotations import quote

from core.errors import ConfigError, EndpointError
from pipelines.artifacts.root import ArtifactRoot
from pipelines.experiment.config import Experiment
from pipelines.orchestration.artifacts import ProgressArtifact, artifact_key, publish_step
from pipelines.orchestration.prefect_pool import task_pool
from pipelines.orchestration.shown_run import current_run
from pipelines.running.console import Console
from pipelines.running.results import RunResult
from pipelines.running.runner import Runner

BACKOFF_S = 30.0
"""Seconds before a step whose endpoint failed is tried again; every later wait doubles."""


def run_as_tasks(runner: Runner) -> RunResult:
    """Run every step of a runner as a task of the flow that is running."""
    runner.prepare()
    # quoted, Prefect does not look through it for results of other tasks
    document: Any = quote(runner.experiment.model_dump(mode="json"))
    runtime = runner.experiment.runtime
    states: dict[str, State[Any]] = {}
    with runner.open():
        for step in runner.steps:
            task_of_step = compute_step.with_options(
                name=step.name,
                timeout_seconds=runtime.step_timeout_s,
                retries=runtime.step_retries,
                retry_delay_seconds=exponential_backoff(BACKOFF_S),
                retry_jitter_factor=0.25,
            )
            state = task_of_step(
                experiment=document,
                root=str(runner.root.path),
                step=step.name,
                finished={name: made.artifact.key for name, made in runner.runs.items()},
                command=runner.command,
                wait_for=[states[name] for name in step.inputs.values()],
                return_state=True,
            )
            for made in _result(state, step.name, runtime.step_timeout_s):
                runner.adopt(**made)
            states[step.name] = state
        return runner.finish()


def _result(state: State[Any], step: str, timeout_s: float | None) -> list[dict[str, Any]]:
    """Return what a task returned, or raise what it raised."""
    if state.name == "TimedOut":
        error = ConfigError(
            f"{step}: took longer than runtime.step_timeout_s, {timeout_s:g} s. Finished "
            "work is kept: raise the limit and run again."
        )
        current_run().error = error
        raise error
    found: list[dict[str, Any]] = state.result()
    return found


def _is_endpoint_error(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a step failed on an endpoint, so that a retry may succeed."""
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
    publish_step(done, key_shown)
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
