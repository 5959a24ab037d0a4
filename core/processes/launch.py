"""One piece of work in several processes of this machine, each with a device of its own.

Every process runs the same function, and finds the others by the environment variables that
torchrun and accelerate set too; `accelerate launch` over a script that calls it does the same on
several machines.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

from core.errors import LatentQAError
from core.processes.task_pool import end_with_parent
from core.progress import Progress

T = TypeVar("T")


def run_distributed(
    work: Callable[..., T], processes: int, *args: Any, progress: Progress, **kwargs: Any
) -> T:
    """Run `work(*args, **kwargs)` in several processes and return the result of the first.

    The processes end with this one, however it ends.

    Args:
        work: a function of a module; takes `progress` too.
        processes: their number.
        args: of `work`, picklable.
        progress: receives the progress of the first process.
        kwargs: of `work`, picklable.

    Raises:
        LatentQAError: what one of them raised.
        RuntimeError: one of them died.
    """
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    port = _free_port()
    started = []
    ends: list[Connection] = []
    try:
        for rank in range(processes):
            mine, theirs = context.Pipe()
            names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            names |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
            names["MASTER_PORT"] = str(port)
            child = context.Process(target=_run_member, args=(theirs, names, work, args, kwargs))
            child.daemon = True
            child.start()
            theirs.close()
            started.append(child)
            ends.append(mine)
        return cast(T, _listen(ends, progress))
    finally:
        for child in started:
            if child.is_alive():
                child.terminate()
            child.join()


def _listen(ends: list[Connection], progress: Progress) -> object:
    """Return the first process's result, or raise the first error of any."""
    waiting = list(ends)
    result: object = None
    while waiting:
        for end in multiprocessing.connection.wait(waiting):
            assert isinstance(end, Connection)
            try:
                kind, value = end.recv()
            except EOFError as error:
                raise RuntimeError(
                    f"process {ends.index(end)} of {len(ends)} died (out of memory?)"
                ) from error
            if kind == "progress":
                if end is ends[0]:
                    progress(*value)
                continue
            if kind == "error":
                raise value
            if end is ends[0]:
                result = value
            waiting.remove(end)
    return result


def _run_member(
    parent: Connection,
    names: dict[str, str],
    work: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    os.environ.update(names)
    # accelerate would set it to the same, with a warning
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    end_with_parent()

    def tell(done: int, total: int, note: str = "") -> None:
        parent.send(("progress", (done, total, note)))

    try:
        parent.send(("done", work(*args, **kwargs, progress=tell)))
    except LatentQAError as error:
        parent.send(("error", error))
    except Exception as error:
        parent.send(("error", RuntimeError(f"{type(error).__name__}: {error}")))
        raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
