"""Forward passes side by side: on a CPU, several of few threads are faster than one of many.

Only the large products of a forward pass share their work well among threads; what lies between
them, and Python itself, keeps the other cores waiting. So each lane has a thread, a share of
torch's CPU threads, and a copy of the network on the same weights: hooks, and what some networks
keep from one pass to the next, are a lane's own. A pass computes the same numbers in any lane; that
its bits do not depend on its number of threads is torch's doing, and was so wherever it was tried.

A device that is not a CPU has one lane: it has work as soon as Python is a batch ahead.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

import torch
from torch import nn

_LOG = logging.getLogger(__name__)
MOST = 4
"""Lanes, each of which takes the memory of a forward pass."""
PATIENCE = 10.0
"""Seconds of a wait after which the one who waits looks after other things."""
S = TypeVar("S")
R = TypeVar("R")


class Lanes:
    """The lanes of a network; a context, in which torch's CPU threads are shared among them.

    Args:
        net: on one device, in evaluation mode.
        most: lanes; where it is None, the number up to `MOST` that leaves the fewest of torch's CPU
            threads without work.
    """

    def __init__(self, net: nn.Module, most: int | None = None) -> None:
        self.device = next(net.parameters()).device
        alone = self.device.type != "cpu" or hasattr(net, "reset_iter_state")  # FSDP2's are one
        self._threads = torch.get_num_threads()
        wanted = 1 if alone else most or _best(self._threads)
        nets = [net, *_copies(net, wanted - 1)]
        self._n = len(nets)
        self._nets: SimpleQueue[nn.Module] = SimpleQueue()
        for each in nets:
            self._nets.put(each)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Lanes:
        if self._n > 1:
            torch.set_num_threads(max(1, self._threads // self._n))
            self._pool = ThreadPoolExecutor(self._n)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            try:
                self._pool.shutdown(cancel_futures=True)
            finally:
                self._pool = None
                torch.set_num_threads(self._threads)

    def each(
        self,
        work: Callable[[nn.Module, S], R],
        items: Iterable[S],
        waiting: Callable[[], object] = int,
    ) -> Iterator[R]:
        """What `work` makes of each of `items` with a lane's network, in their order.

        Items and results are the caller's thread's; `work` runs in a lane's, where there are
        several. As many are begun ahead of the one that is waited for as there are lanes.

        Args:
            waiting: called in the caller's thread every `PATIENCE` seconds of a wait.
        """

        def run(item: S) -> R:
            net = self._nets.get()
            try:
                return work(net, item)
            finally:
                self._nets.put(net)

        begun: deque[Future[R]] = deque()
        for item in items:
            begun.append(_done(run(item)) if self._pool is None else self._pool.submit(run, item))
            if len(begun) > self._n:
                yield patient(begun.popleft(), waiting)
        while begun:
            yield patient(begun.popleft(), waiting)


def patient(future: Future[R], waiting: Callable[[], object]) -> R:
    """The result of `future`; `waiting` is called every `PATIENCE` seconds until it is there."""
    while not wait([future], PATIENCE).done:
        waiting()
    return future.result()


def _best(threads: int) -> int:
    """2 to `MOST` lanes, so that the fewest of `threads` are left over, and of equals the most."""
    return max(range(min(2, threads), MOST + 1), key=lambda n: (n * (threads // n), n))


def _copies(net: nn.Module, n: int) -> list[nn.Module]:
    """Networks on the weights of `net`; none where it cannot be copied."""
    weights = {id(p): p for p in net.parameters()}
    try:
        return [copy.deepcopy(net, dict(weights)) for _ in range(n)]
    except Exception as error:  # of whatever it holds; one lane does the same work
        _LOG.debug("%s cannot be copied: %s", type(net).__name__, error)
        return []


def _done(value: R) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(value)
    return future
