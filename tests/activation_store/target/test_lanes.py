"""Forward passes side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from activation_store.target import lanes
from activation_store.target.capture import Capture
from activation_store.target.lanes import Lanes
from core.errors import ModelError

BATCHES = [[np.arange(5 + i, 5 + i + n, dtype=np.int32) for n in (9, 7, 8)] for i in range(7)]


def outputs(net: nn.Module, batch: list[np.ndarray]) -> bytes:
    return Capture(net, [1])(batch)[1].numpy().tobytes()


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_each_pass_is_what_it_is_alone(most: int, family: str) -> None:
    net = tiny.model(family=family)
    with Lanes(net, most) as found:
        assert list(found.each(outputs, BATCHES)) == [outputs(net, batch) for batch in BATCHES]


def test_lanes_share_their_weights_and_nothing_else() -> None:
    net = tiny.model()
    nets = set()

    def meet(own: nn.Module, barrier: threading.Barrier) -> None:
        barrier.wait(10)  # all three are at work at once
        nets.add(own)

    with Lanes(net, 3) as found:
        list(found.each(meet, [threading.Barrier(3)] * 3))
    first, *others = nets
    assert len(others) == 2
    for other in others:
        pairs = zip(first.parameters(), other.parameters(), strict=True)
        assert all(a is b for a, b in pairs)
        assert not set(first.modules()) & set(other.modules())


def test_cpu_threads_are_shared_among_lanes_and_given_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with Lanes(tiny.model(), 2) as found:
            assert list(found.each(lambda net, _: torch.get_num_threads(), range(3))) == [2, 2, 2]
        assert torch.get_num_threads() == 4
        with pytest.raises(KeyError), Lanes(tiny.model(), 2):
            raise KeyError
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "expected"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 3), (8, 4), (11, 2)]
)
def test_few_threads_are_left_over(threads: int, expected: int) -> None:
    assert lanes._best(threads) == expected


@pytest.mark.parametrize("most", [1, 2])
def test_few_passes_are_begun_ahead(most: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for i in range(9):
            asked.append(i)
            yield i

    with Lanes(tiny.model(), most) as found:
        for i in found.each(lambda net, item: item, items()):
            assert max(asked) <= i + most


@pytest.mark.parametrize("most", [1, 2])
def test_an_error_of_a_pass_is_the_callers(most: int) -> None:
    def fail(net: nn.Module, item: int) -> int:
        if item == 2:
            raise ModelError("no room")
        return item

    with Lanes(tiny.model(), most) as found, pytest.raises(ModelError, match="no room"):
        list(found.each(fail, range(5)))


def test_a_network_that_cannot_be_copied_has_one_lane() -> None:
    net = tiny.model()
    net.held = threading.Lock()  # type: ignore[assignment]
    with Lanes(net, 3) as found:
        assert list(found.each(lambda own, _: own, range(2))) == [net, net]
