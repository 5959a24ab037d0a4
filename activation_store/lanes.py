"""Forward passes side by side: on a CPU, several of few threads are faster than one of many.

Only the large products of a forward pass share their work well among threads; what lies between
them, and Python itself, keeps the other cores waiting. So each lane has a thread, a share of
torch's CPU threads, and a copy of the network on the same weights: hooks, and what some networks
keep from one pass to the next, are a lane's own. Numbers do not depend on how many lanes there are.

A device that is not a CPU has one lane: it has work as soon as Python is a batch ahead.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

import torch
from torch import nn

_LOG = logging.getLogger(__name__)
MOST = 4
"""Lanes, each of which takes the memory of a forward pass."""
S = TypeVar("S")
R = TypeVar("R")


class Lanes:
    """The lanes of a network; a context, in which torch's CPU threads are shared among them.

    Args:
        net: on one device, in evaluation mode.
        most: lanes; as many as torch has CPU threads, and at most `MOST`, where it is None.
    """

    def __init__(self, net: nn.Module, most: int | None = None) -> None:
        self.device = next(net.parameters()).device
        alone = self.device.type != "cpu" or hasattr(net, "reset_iter_state")  # FSDP2's are one
        self._threads = torch.get_num_threads()
        wanted = 1 if alone else most or min(MOST, self._threads)
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
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            torch.set_num_threads(self._threads)

    def each(self, work: Callable[[nn.Module, S], R], items: Iterable[S]) -> Iterator[R]:
        """What `work` makes of each of `items` with a lane's network, in their order.

        Item and result are the caller's thread's; `work` runs in a lane's, where there are several.
        As many are begun ahead of the one that is waited for as there are lanes.
        """

        def run(item: S) -> R:
            net = self._nets.get()
            try:
                return work(net, item)
            finally:
                self._nets.put(net)

        begun: deque[Callable[[], R]] = deque()
        for item in items:
            if self._pool is None:
                begun.append(functools.partial(_same, run(item)))
            else:
                found: Future[R] = self._pool.submit(run, item)
                begun.append(found.result)
            if len(begun) > self._n:
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()


def _copies(net: nn.Module, n: int) -> list[nn.Module]:
    """Networks on the weights of `net`; none where it cannot be copied."""
    weights = {id(p): p for p in net.parameters()}
    try:
        return [copy.deepcopy(net, dict(weights)) for _ in range(n)]
    except (TypeError, RuntimeError, copy.Error) as error:  # of something that it holds
        _LOG.debug("%s cannot be copied: %s", type(net).__name__, error)
        return []


def _same(value: R) -> R:
    return value
