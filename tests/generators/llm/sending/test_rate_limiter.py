import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from generators.llm.sending.rate_limiter import START, AdaptiveRateLimiter


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def rounds(limiter: AdaptiveRateLimiter, count: int) -> None:
    """So many rounds of as many replies as may be under way."""
    for _ in range(count):
        for _ in range(int(limiter.limit)):
            limiter.under_way = int(limiter.limit)
            limiter.replied()
        limiter.under_way = 0


def test_it_starts_low_and_doubles_up_to_its_bound() -> None:
    limiter = AdaptiveRateLimiter(200)
    assert limiter.limit == START
    rounds(limiter, 1)
    assert limiter.limit == 2 * START
    rounds(limiter, 5)
    assert limiter.limit == 200


def test_it_falls_on_an_overload_once_for_all_that_was_under_way() -> None:
    limiter = AdaptiveRateLimiter(200)
    rounds(limiter, 5)
    sent = time.monotonic()
    for _ in range(50):
        limiter.overloaded(sent, None, 0.1)
    assert limiter.limit == pytest.approx(200 * 0.7)
    limiter.overloaded(time.monotonic(), None, 0.1)
    assert limiter.limit == pytest.approx(200 * 0.49)


def test_after_a_fall_it_rises_by_a_tenth_a_round() -> None:
    limiter = AdaptiveRateLimiter(1000)
    rounds(limiter, 4)
    limiter.overloaded(time.monotonic(), None, 0.1)
    before = limiter.limit
    rounds(limiter, 1)
    assert before * 1.05 < limiter.limit < before * 1.15


def test_a_storm_of_overloads_leaves_a_few_requests_under_way() -> None:
    limiter = AdaptiveRateLimiter(200)
    for _ in range(100):
        limiter.overloaded(time.monotonic(), None, 0.01)
    assert limiter.limit == 4


def test_a_limit_that_is_not_reached_does_not_rise() -> None:
    async def served(limiter: AdaptiveRateLimiter) -> None:
        await limiter.acquire(20)
        limiter.replied()
        limiter.release()

    limiter = AdaptiveRateLimiter(100)
    for _ in range(200):
        run(served(limiter))
    assert limiter.limit == START


def test_a_fixed_limit_stays_as_it_is() -> None:
    limiter = AdaptiveRateLimiter(4, adaptive=False)
    rounds(limiter, 3)
    limiter.overloaded(time.monotonic(), None, 0.1)
    assert limiter.limit == 4


def test_no_more_than_the_limit_are_let_through_and_none_is_forgotten() -> None:
    async def work() -> int:
        limiter = AdaptiveRateLimiter(3)
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            await limiter.acquire(1)
            most = max(most, limiter.under_way)
            await asyncio.sleep(0.001)
            limiter.release()

        tasks = [asyncio.create_task(one(number)) for number in range(50)]
        await asyncio.sleep(0.003)
        for task in tasks[10:20]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.under_way == 0
        return most

    assert run(work()) == 3


@pytest.mark.parametrize(("named", "least"), [(0.3, 0.3), (None, 0.2)])
def test_a_pause_holds_back_all(named: float | None, least: float) -> None:
    async def work() -> float:
        limiter = AdaptiveRateLimiter(8)
        limiter.overloaded(time.monotonic(), named, 0.2)
        start = time.monotonic()
        await asyncio.gather(*(limiter.acquire(1) for _ in range(3)))
        return time.monotonic() - start

    assert least <= run(work()) < 1


def test_the_time_of_overload_ends_with_a_reply() -> None:
    limiter = AdaptiveRateLimiter(8)
    assert limiter.overloaded_s == 0
    limiter.overloaded(time.monotonic(), None, 0.01)
    time.sleep(0.02)
    assert limiter.overloaded_s > 0.01
    limiter.replied()
    assert limiter.overloaded_s == 0


def test_caps_space_requests_and_tokens_evenly() -> None:
    async def work(limiter: AdaptiveRateLimiter) -> float:
        start = time.monotonic()
        for _ in range(5):
            await limiter.acquire(100)
            limiter.release(unused_tokens=50)
        return time.monotonic() - start

    assert 0.4 <= run(work(AdaptiveRateLimiter(100, requests_per_minute=600))) < 1.0
    # 100 are expected, 50 are used
    assert 0.2 <= run(work(AdaptiveRateLimiter(100, tokens_per_minute=60_000))) < 0.9
