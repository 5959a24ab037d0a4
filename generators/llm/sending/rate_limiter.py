"""Limit how fast an endpoint is asked: requests under way, its own pauses, the user's caps.

The number of requests under way starts at `START` and doubles with each round of replies. It falls
when the endpoint says that it has enough (429, 503, 529) or stays silent, and then rises by a tenth
a round. While the endpoint has enough all requests wait: for as long as it names, else for a
quarter of the time that it has had enough. Caps on requests and tokens a minute are kept by spacing
requests evenly.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

START = 16
"""Requests under way at first."""
_FEWEST = 4.0
"""Requests under way that overloads leave: one alone would hardly see when it is over."""
_DECREASE = 0.7
_INCREASE = 0.1
"""Growth of the limit in a round of replies, once it has fallen."""
_PAUSE_SHARE = 0.25
_LONGEST_UNNAMED_PAUSE_S = 10.0


class AdaptiveRateLimiter:
    """Let requests through, one `acquire` and one `release` each.

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
        self._has_fallen = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._requests = _EvenSpacing(requests_per_minute)
        self._tokens = _EvenSpacing(tokens_per_minute)
        self._pause_until = 0.0
        self._fell_at = 0.0
        self._overloaded_since: float | None = None

    @property
    def overloaded_s(self) -> float:
        """Seconds since the first sign of overload after the last reply; 0 where there is none."""
        return 0.0 if self._overloaded_since is None else time.monotonic() - self._overloaded_since

    async def acquire(self, tokens: int) -> float:
        """Wait until a request of about so many tokens may be sent; returns the time of sending."""
        if self._waiting or self.under_way + 1 > self.limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # the waker has counted it as under way
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.release()
                raise
        else:
            self.under_way += 1
        try:
            now = time.monotonic()
            wait = max(self._requests.take(now, 1), self._tokens.take(now, tokens))
            while (wait := max(wait, self._pause_until - now)) > 0:
                await asyncio.sleep(wait)
                wait, now = 0.0, time.monotonic()
        except BaseException:
            self.release(unused_tokens=tokens)
            raise
        return now

    def release(self, unused_tokens: int = 0) -> None:
        """End a request, which took `unused_tokens` less than was expected."""
        self._tokens.give_back(unused_tokens)
        self.under_way -= 1
        while self._waiting and self.under_way + 1 <= self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.under_way += 1
                turn.set_result(None)

    def replied(self) -> None:
        """Take note of a reply; raise the limit where it was reached."""
        self._overloaded_since = None
        # a limit that is not reached says nothing about the endpoint
        if self._adaptive and (self._waiting or self.under_way + 1 >= self.limit):
            step = max(1.0, self.limit * _INCREASE) / self.limit if self._has_fallen else 1.0
            self.limit = min(self._most, self.limit + step)

    def overloaded(self, sent_at: float, wait_s: float | None, backoff_s: float) -> None:
        """Take note of a refusal; lower the limit.

        Args:
            sent_at: when the request was sent that it refused.
            wait_s: pause that it named, in seconds; None where it named none.
            backoff_s: shortest pause where it named none, in seconds.
        """
        now = time.monotonic()
        if self._overloaded_since is None:
            self._overloaded_since = now
        if wait_s is None:
            growing = _PAUSE_SHARE * (now - self._overloaded_since)
            wait_s = min(max(backoff_s, growing), max(backoff_s, _LONGEST_UNNAMED_PAUSE_S))
        self._pause_until = max(self._pause_until, now + wait_s)
        self.reduce(sent_at)

    def reduce(self, sent_at: float) -> None:
        """Reduce the limit, once for all that was under way together."""
        if self._adaptive and sent_at >= self._fell_at:
            self.limit = max(min(_FEWEST, self._most), self.limit * _DECREASE)
            self._has_fallen = True
            self._fell_at = time.monotonic()


class _EvenSpacing:
    """Even spacing of so much a minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def take(self, now: float, amount: float) -> float:
        """Take `amount`; returns seconds until it may go."""
        start = max(now, self._next)
        self._next = start + amount * self._seconds_each
        return start - now

    def give_back(self, amount: float) -> None:
        """Count so much less than was taken."""
        self._next -= amount * self._seconds_each
