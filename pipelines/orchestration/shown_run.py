"""State of a run on a Prefect server; the run goes on where the server is lost."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from prefect.client.orchestration import SyncPrefectClient, get_client

from core.text.redact import redact
from pipelines.running.prefect_settings import configured_api_url
from pipelines.running.results import RunResult

T = TypeVar("T")
ClientCall = Callable[[SyncPrefectClient], object]


class Sender:
    """Makes calls in their order; `close` waits for all. It can be used again after that.

    Args:
        guard: makes a call, and keeps what it raises.
    """

    def __init__(self, guard: Callable[[Callable[[], object]], object]) -> None:
        self._guard = guard
        self._thread: ThreadPoolExecutor | None = None
        self._client: SyncPrefectClient | None = None  # of that thread alone
        self._open = contextlib.ExitStack()

    def send(self, call: ClientCall) -> None:
        """Make a call after those before it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefect-artifacts")
        self._thread.submit(self._guard, lambda: self._make(call))

    def close(self) -> None:
        """Wait until all calls are made."""
        if self._thread is not None:
            self._thread.shutdown()
        self._open.close()
        self._thread = self._client = None

    def _make(self, call: ClientCall) -> None:
        if self._client is None:
            self._client = self._open.enter_context(get_client(sync_client=True))
        call(self._client)


@dataclass
class ShownRun:
    """Result or error of the run in this process, kept apart from the server's state."""

    result: RunResult | None = None
    error: Exception | None = None
    """Of our own code; an error of the server's client ends no run."""
    server_lost: bool = False
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        """Keep what the sender's calls raise from the run."""
        self.sender = Sender(self.guarded)

    def guarded(self, call: Callable[[], T]) -> T | None:
        """Call the server; once it is lost, that is said once, and it is no longer called."""
        if self.server_lost:
            return None
        try:
            return call()
        except Exception as error:  # whatever the client or the server raises: a run needs neither
            self.say_lost(error)
            return None

    def say_lost(self, error: Exception) -> None:
        """Print once that the server is lost."""
        if not self.server_lost:
            self.server_lost = True
            print(
                f"Prefect at {redact(configured_api_url() or '')} cannot be reached any "
                f"more ({type(error).__name__}); the run continues but is no longer shown "
                "there.",
                file=sys.stderr,
                flush=True,
            )


_RUN: ContextVar[ShownRun] = ContextVar("run")


def current_run() -> ShownRun:
    """Return the state of the run; a new one where the server itself has started it."""
    try:
        return _RUN.get()
    except LookupError:
        state = ShownRun()
        _RUN.set(state)
        return state


def guarded(call: Callable[[], T]) -> T | None:
    """Call Prefect's API, which may be lost; None where it is."""
    return current_run().guarded(call)


@contextlib.contextmanager
def new_run() -> Iterator[ShownRun]:
    """Begin the state of a run, which the body shows."""
    token = _RUN.set(state := ShownRun())
    try:
        yield state
    finally:
        _RUN.reset(token)
