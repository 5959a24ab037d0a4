"""Task pools: calls of a function with plain arguments, spread over processes.

A step hands its pieces (shards, requests, points of a sweep) to a pool, and does not depend on
what is behind it: this process, threads, a pool of processes, or an orchestrator's task runner. A
function that a pool can run

- stands in a module, and takes and returns plain values (text, numbers, lists, dicts), so that it
  can be called in any process that sees the same files;
- leaves its result on disk or returns it whole, so that a call that is lost is only called again.

A call that fails or whose process is killed is an outcome, not an error: the caller checks what is
missing and repeats it, or does it itself.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from core.runtime import Runtime

T = TypeVar("T")

PIECES_PER_WORKER = 4
"""Calls that each worker gets in turn where work can be cut at will: enough for an even end."""
MOST_CALLS = 1000
"""Calls at most where work can be cut at will: a server shows so many and no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOutcome:
    """The value or the error of one call."""

    number: int
    """Position of the call among those given."""
    value: Any = None
    """What it returned."""
    error: Exception | None = None
    """What it raised, or that its process has ended."""


class TaskPool(Protocol):
    """Runs calls of a function side by side."""

    @property
    def workers(self) -> int:
        """Calls at once; with 1 they run in this process."""

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[Mapping[str, Any]],
        labels: Sequence[str],
    ) -> Iterator[TaskOutcome]:
        """Call a function once for each set of named arguments.

        Args:
            function: of a module, with plain arguments.
            calls: its arguments, by name.
            labels: what each call is, in a few words, for those who watch.

        Yields:
            one outcome a call, as they come.
        """


class InProcess:
    """Runs one call after the other in this process."""

    workers = 1

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[Mapping[str, Any]],
        labels: Sequence[str] = (),
    ) -> Iterator[TaskOutcome]:
        """Call a function once for each set of named arguments, as `TaskPool.run`."""
        for number, call in enumerate(calls):
            try:
                yield TaskOutcome(number=number, value=function(**call))
            except Exception as error:
                yield TaskOutcome(number=number, error=error)


@dataclass(frozen=True)
class LocalPool:
    """Runs calls in processes of this machine.

    Attributes:
        workers: calls at once.
        apart: whether each call has a process of its own, for which a thread waits; else the
            processes are a pool, each of which runs several calls in turn.
    """

    workers: int
    apart: bool = False

    def run(
        self,
        function: Callable[..., Any],
        calls: Sequence[Mapping[str, Any]],
        labels: Sequence[str] = (),
    ) -> Iterator[TaskOutcome]:
        """Call a function once for each set of named arguments, as `TaskPool.run`."""
        pool: Executor = (
            ThreadPoolExecutor(self.workers) if self.apart else process_pool(self.workers)
        )
        numbers: dict[Future[Any], int] = {}
        try:
            for number, call in enumerate(calls):
                try:
                    if self.apart:
                        future = pool.submit(call_apart, function, call)
                    else:
                        future = pool.submit(function, **call)
                except BrokenExecutor as error:  # a process was killed already
                    yield TaskOutcome(number=number, error=error)
                else:
                    numbers[future] = number
            for future in as_completed(numbers):
                yield _outcome(numbers[future], future)
        finally:
            pool.shutdown(cancel_futures=True)


def local_pool(runtime: Runtime) -> TaskPool:
    """Return the pool of this machine that `runtime` chooses."""
    if runtime.workers is None or runtime.workers == 1:
        return InProcess()
    return LocalPool(runtime.workers, apart=runtime.task_runner == "threads")


def call_apart(function: Callable[..., T], arguments: Mapping[str, Any]) -> T:
    """Call a function in a process of its own, and wait for it."""
    with process_pool(1) as pool:
        return pool.submit(function, **arguments).result()


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Start a pool of processes that end with this one."""
    # a fork of a process that has run torch hangs in its thread pool
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has, even where that was killed.

    A pool's process holds both ends of the pipe that its calls come from, and would wait for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker_number() -> int:
    """Return the number of this process among those of a pool, from 0; 0 outside any."""
    found = re.fullmatch(r".*-(\d+)", multiprocessing.current_process().name)
    return int(found[1]) - 1 if found else 0


def split(items: Sequence[T], pool: TaskPool, *, most: int) -> list[Sequence[T]]:
    """Cut work into pieces, each for one call: several a worker, so that all end at a time.

    Args:
        items: the work.
        pool: what runs it.
        most: items in a piece at most, unless there were more than `MOST_CALLS` pieces.
    """
    if not items:
        return []
    size = min(most, -(-len(items) // (PIECES_PER_WORKER * pool.workers)))
    size = max(size, -(-len(items) // MOST_CALLS))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _outcome(number: int, future: Future[Any]) -> TaskOutcome:
    try:
        return TaskOutcome(number=number, value=future.result())
    except Exception as error:  # of the function, or that its process has ended
        return TaskOutcome(number=number, error=error)
