"""Check the Prefect server, run without it where it is lost, and mark killed runs as crashed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker, emit_events_to_cloud
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed

from core.errors import EndpointError, LatentQAError
from core.text.redact import redact
from pipelines.artifacts.locks import exclusive_or_none
from pipelines.artifacts.root import ArtifactRoot
from pipelines.orchestration.shown_run import guarded, new_run
from pipelines.running.prefect_settings import bypass_proxy

T = TypeVar("T")
_LOCK = "flow-"
"""How the name of a run's lock file begins."""


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


def with_server(shown: Callable[[], T], alone: Callable[[], T]) -> T:
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
    with new_run() as state:
        try:
            return shown()
        except LatentQAError:
            raise
        except Exception as error:
            if state.error is not None:
                raise state.error from None
            state.say_lost(error)
            return alone()


@contextlib.contextmanager
def hold_run_lock(root: ArtifactRoot, run: str) -> Iterator[None]:
    """Hold the lock that tells that a run is alive, and remove it at the end.

    A kill leaves the file behind, free.
    """
    path = root.path / "locks" / f"{_LOCK}{run}.lock"
    with exclusive_or_none(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def mark_killed_runs(root: ArtifactRoot) -> list[str]:
    """Mark the flow runs that a kill left `Running` as `Crashed`; return their ids.

    Prefect itself would show such a run as running for ever.
    """
    marked = []
    for path in sorted((root.path / "locks").glob(f"{_LOCK}*.lock")):
        run = path.stem.removeprefix(_LOCK)
        with exclusive_or_none(path) as free:
            # None where the server is lost: the lock stays for another time
            if free and guarded(partial(_mark_crashed, UUID(run))) is not None:
                path.unlink(missing_ok=True)
                marked.append(run)
    return marked


def mark_task_crashed(run: UUID) -> None:
    """Mark a task run whose process of the pool was killed as `Crashed`."""
    message = "A process of the pool was killed; its unfinished tasks are run again."
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        client.set_task_run_state(run, Crashed(message=message), force=True)


def _mark_crashed(run: UUID) -> bool:
    """Mark a flow run and its task runs as crashed; False where it has ended, or is unknown."""
    message = "Its process was killed; the next run resumes from the finished work."
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
