"""How fast an endpoint is asked: as fast as it answers well, and never faster than it allows.

The number of requests under way starts low and is raised while replies come as quickly as before:
it doubles with each round at first, and by a tenth after the first sign that the endpoint has
enough. It falls when the endpoint says 429 (or 503, 529), and when replies take more than twice as
long as they did: then requests only wait in the endpoint's queue, not in ours.

Pauses are the endpoint's own: Retry-After, and x-ratelimit headers that say that nothing is left.
Caps on requests and tokens a minute are kept by spacing requests evenly.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

START = 16
"""Requests under way at first."""
LONGEST_PAUSE_S = 60.0
"""Longest that an endpoint is believed when it asks for a pause, in seconds."""

_ON_LIMIT, _ON_LATENCY = 0.7, 0.9
"""What is left of the limit after each sign."""
_GROWTH = 0.1
"""Growth of the limit in a round, once there was a sign."""
_SLOWER = 2.0
"""How much slower replies are a sign."""
_FORGETTING = 1.1
"""Growth of the best latency known in a round: what is asked changes, and its latency with it."""
_FIXED_TOKENS = 16
"""Tokens whose time a reply takes besides its own: prompt, network."""
_FEWEST_REPLIES = 8
"""Replies that a judgement of latency needs."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class AdaptiveRateLimiter:
    """Lets requests through, one `enter` and one `leave` each.

    Attributes:
        limit: requests that may be under way now.
        under_way: requests that are.

    Args:
        most: upper bound of `limit`.
        adaptive: whether `limit` moves; else it is `most`.
        requests_per_minute: cap; None for none.
        tokens_per_minute: cap on prompt and reply together; None for none.
    """

    def __init__(
        self,
        most: int,
        *,
        adaptive: bool = True,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self.limit = float(min(START, most) if adaptive else most)
        self.under_way = 0
        self._most = most
        self._adaptive = adaptive
        self._doubling = True
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._requests = _Spacing(requests_per_minute)
        self._tokens = _Spacing(tokens_per_minute)
        self._mean_tokens = 0.0
        self._pause_until = 0.0
        self._fell_at = 0.0
        self._round: list[float] = []
        self._best: float | None = None

    async def enter(self, tokens: int) -> float:
        """Wait until a request of about so many tokens may be sent; returns the time of sending."""
        if self._waiting or self.under_way + 1 > self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # whoever lets it through counts it as under way
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave()
                raise
        else:
            self.under_way += 1
        try:
            now = time.monotonic()
            wait = max(self._requests.wait(now, 1), self._tokens.wait(now, tokens))
            while (wait := max(wait, self._pause_until - now)) > 0:
                await asyncio.sleep(wait)
                wait, now = 0.0, time.monotonic()
        except BaseException:
            self.leave(spare=tokens)
            raise
        return now

    def leave(self, spare: int = 0) -> None:
        """A request is under way no longer, and took `spare` tokens less than was expected."""
        self._tokens.correct(-spare)
        self.under_way -= 1
        while self._waiting and self.under_way + 1 <= self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)

    def replied(self, seconds: float, tokens: int) -> None:
        """A reply came after so many seconds, of so many tokens with its prompt."""
        self._mean_tokens += (tokens - self._mean_tokens) / 16
        if not self._adaptive:
            return
        # a limit that is not reached says nothing about the endpoint
        if self._waiting or self.under_way + 1 >= self.limit:
            step = 1.0 if self._doubling else max(1.0, self.limit * _GROWTH) / self.limit
            self.limit = min(self._most, self.limit + step)
        self._round.append(seconds / (tokens + _FIXED_TOKENS))
        if len(self._round) >= max(_FEWEST_REPLIES, self.limit):
            mean = sum(self._round) / len(self._round)
            self._round.clear()
            if self._best is not None and mean > _SLOWER * self._best:
                self._fall(_ON_LATENCY)
            self._best = mean if self._best is None else min(mean, self._best * _FORGETTING)

    def limited(self, sent: float, wait_s: float | None) -> None:
        """The endpoint had enough when it got the request sent at `sent`, and named a pause."""
        if wait_s is not None:
            self._pause(wait_s)
        # one fall answers all that was under way when it happened
        if self._adaptive and sent >= self._fell_at:
            self._fall(_ON_LIMIT)

    def told(self, headers: Mapping[str, str]) -> None:
        """Heed x-ratelimit headers: pause where nothing is left, until a round's worth is."""
        for what, each in (("requests", 1.0), ("tokens", max(1.0, self._mean_tokens))):
            if (said := headers.get(f"x-ratelimit-remaining-{what}")) is None:
                continue
            left = _number(said)
            reset = duration_s(headers.get(f"x-ratelimit-reset-{what}"))
            if left is None or reset is None or left >= each:
                continue
            whole = _number(headers.get(f"x-ratelimit-limit-{what}"))
            used = (whole or 0.0) - left
            # the reset is the time to all of it; a round needs only its share
            share = min(1.0, self.limit * each / used) if used > 0 else 1.0
            self._pause(reset * share)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + min(seconds, LONGEST_PAUSE_S)
        self._pause_until = max(self._pause_until, until)

    def _fall(self, left: float) -> None:
        self.limit = max(1.0, self.limit * left)
        self._doubling = False
        self._fell_at = time.monotonic()
        self._round.clear()


class _Spacing:
    """Even spacing of so much a minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until `amount` may go; it is then taken as gone."""
        start = max(now, self._next)
        self._next = start + amount * self._seconds_each
        return start - now

    def correct(self, amount: float) -> None:
        """So much more (or less) has gone than was taken."""
        self._next += amount * self._seconds_each


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for: as a number, a date, or in milliseconds; else None."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    if said is None:
        return None
    if (seconds := _number(said)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def duration_s(text: str | None) -> float | None:
    """Seconds of a duration such as `6m0s`, `20ms` or `1.5`; None for anything else."""
    if text is None:
        return None
    if (seconds := _number(text)) is not None:
        return seconds
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
