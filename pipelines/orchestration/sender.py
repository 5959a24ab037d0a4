"""Calls of the Prefect API from a thread of their own, so that a run need not wait for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from prefect.client.orchestration import SyncPrefectClient, get_client

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
        self._open = ExitStack()

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
