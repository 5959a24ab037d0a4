import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from generators.llm.rate_limiter import START, AdaptiveRateLimiter, duration_s, retry_after_s


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


async def served(pace: AdaptiveRateLimiter, latency_s: float, tokens: int = 20) -> None:
    """One request that is answered after so many seconds."""
    await pace.enter(tokens)
    pace.replied(latency_s, tokens)
    pace.leave()


def rounds(pace: AdaptiveRateLimiter, count: int, latency_s: float) -> None:
    """So many rounds of as many replies as may be under way."""
    for _ in range(count):
        for _ in range(int(pace.limit)):
            pace.under_way = int(pace.limit)
            pace.replied(latency_s, 20)
        pace.under_way = 0


def test_it_starts_low_and_doubles_up_to_its_bound() -> None:
    pace = AdaptiveRateLimiter(200)
    assert pace.limit == START
    rounds(pace, 1, 0.1)
    assert pace.limit == 2 * START
    rounds(pace, 5, 0.1)
    assert pace.limit == 200


def test_it_falls_on_a_limit_once_for_all_that_was_under_way() -> None:
    pace = AdaptiveRateLimiter(200)
    rounds(pace, 5, 0.1)
    sent = time.monotonic()
    for _ in range(50):
        pace.limited(sent, None)
    assert pace.limit == pytest.approx(200 * 0.7)
    pace.limited(time.monotonic(), None)
    assert pace.limit == pytest.approx(200 * 0.49)


def test_after_a_sign_it_rises_by_a_tenth_a_round() -> None:
    pace = AdaptiveRateLimiter(1000)
    rounds(pace, 4, 0.1)
    pace.limited(time.monotonic(), None)
    before = pace.limit
    rounds(pace, 1, 0.1)
    assert before * 1.05 < pace.limit < before * 1.15


def test_it_falls_when_replies_take_much_longer_and_recovers() -> None:
    pace = AdaptiveRateLimiter(100)
    rounds(pace, 6, 0.1)
    rounds(pace, 1, 0.3)
    assert 90 <= pace.limit < 92
    rounds(pace, 3, 0.1)
    assert pace.limit == 100


def test_longer_replies_are_no_sign() -> None:
    pace = AdaptiveRateLimiter(100)
    rounds(pace, 6, 0.1)
    for _ in range(300):
        pace.replied(1.0, 20 * 10 + 16 * 9)
    assert pace.limit == 100


def test_a_limit_that_is_not_reached_does_not_rise() -> None:
    pace = AdaptiveRateLimiter(100)
    for _ in range(200):
        run(served(pace, 0.1))
    assert pace.limit == START


def test_a_fixed_pace_stays_as_it_is() -> None:
    pace = AdaptiveRateLimiter(4, adaptive=False)
    rounds(pace, 3, 0.1)
    rounds(pace, 3, 1.0)
    pace.limited(time.monotonic(), None)
    assert pace.limit == 4


def test_no_more_than_the_limit_are_let_through_and_none_is_forgotten() -> None:
    async def work() -> int:
        pace = AdaptiveRateLimiter(3)
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            await pace.enter(1)
            most = max(most, pace.under_way)
            await asyncio.sleep(0.001)
            pace.leave()

        tasks = [asyncio.create_task(one(number)) for number in range(50)]
        await asyncio.sleep(0.003)
        for task in tasks[10:20]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pace.under_way == 0
        return most

    assert run(work()) == 3


def test_a_pause_holds_back_all() -> None:
    async def work() -> float:
        pace = AdaptiveRateLimiter(8)
        pace.limited(time.monotonic(), 0.3)
        start = time.monotonic()
        await asyncio.gather(*(pace.enter(1) for _ in range(3)))
        return time.monotonic() - start

    assert 0.3 <= run(work()) < 1


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}, 0.3, 1),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0.3s"}, 0.3, 1),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"}, 0, 0.1),
        ({"x-ratelimit-remaining-requests": "0"}, 0, 0.1),
        (
            {
                "x-ratelimit-limit-requests": "1600",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "30s",
            },
            0.3,  # a round of 16 of 1,600
            1,
        ),
    ],
)
def test_headers_that_say_that_nothing_is_left_are_heeded(
    headers: dict[str, str], least: float, most: float
) -> None:
    async def work() -> float:
        pace = AdaptiveRateLimiter(100)
        pace.told(headers)
        start = time.monotonic()
        await pace.enter(1)
        return time.monotonic() - start

    assert least <= run(work()) < most


def test_caps_space_requests_and_tokens_evenly() -> None:
    async def work(**caps: float) -> float:
        pace = AdaptiveRateLimiter(100, **caps)
        start = time.monotonic()
        for _ in range(5):
            await pace.enter(100)
            pace.leave(spare=50)
        return time.monotonic() - start

    assert 0.4 <= run(work(requests_per_minute=600)) < 1.0
    # 100 are expected, 50 are used
    assert 0.2 <= run(work(tokens_per_minute=60_000)) < 0.9


def test_retry_after_is_read_in_all_its_forms() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_s({"retry-after": "2"}) == 2
    assert retry_after_s({"retry-after": "2", "retry-after-ms": "1500"}) == 1.5
    found = retry_after_s({"retry-after": later})
    assert found is not None
    assert 28 <= found <= 30
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("1.5", 1.5), ("soon", None), ("", None)],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert duration_s(text) == seconds
