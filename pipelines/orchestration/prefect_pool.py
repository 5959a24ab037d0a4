"""Pieces of a step, and points of a sweep, as Prefect tasks that run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from core.processes.task_pool import InProcess, TaskOutcome, TaskPool, call_apart, end_with_parent
from core.runtime import Runtime
from pipelines.orchestration.server import mark_task_crashed
from pipelines.orchestration.shown_run import guarded


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
    if runtime.workers is None or runtime.workers == 1:
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
            guarded(lambda: mark_task_crashed(future.task_run_id))
        return TaskOutcome(number=number, error=error)
