"""Requests in, outcomes out: the log is asked first, the endpoint only for what is new."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from generators.client import Client, RequestFailed
from generators.endpoint import ResolvedEndpoint
from generators.errors import EndpointError
from generators.llm_request import Outcome, Request, read_reply
from generators.request_log import RequestLog

T = TypeVar("T")

_FAILURES_IN_A_ROW = 20


@dataclass(kw_only=True)
class Spent:
    """What a run has asked so far."""

    requests: int = 0
    cached_requests: int = 0
    failed_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count `outcome`; tokens only where they were spent now."""
        if outcome.cached:
            self.cached_requests += 1
            return
        self.requests += 1
        self.failed_requests += outcome.status == "failed"
        self.prompt_tokens += outcome.prompt_tokens
        self.completion_tokens += outcome.completion_tokens


class Asker:
    """Asks one endpoint through one log, live, with a fixed number of requests at once.

    The endpoint is tried with a small request before the first that is new; a run that finds all
    its replies in the log needs no endpoint at all.
    """

    def __init__(self, endpoint: ResolvedEndpoint, log: RequestLog, concurrency: int) -> None:
        self.endpoint = endpoint
        self.spent = Spent()
        self._log = log
        self._client = Client(endpoint)
        self._width = min(concurrency, endpoint.slots or concurrency)
        self._probe: asyncio.Task[None] | None = None
        self._failures = 0

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    async def ask_all(
        self, requests: Sequence[Request], heard: Callable[[], None] = lambda: None
    ) -> list[Outcome]:
        """Outcomes in the order of `requests`; `heard` is called after each.

        Raises:
            EndpointError: the endpoint cannot be used, or has failed many times in a row.
        """
        outcomes: list[Outcome | None] = [None] * len(requests)
        waiting = iter(enumerate(requests))

        async def work() -> None:
            for place, request in waiting:
                outcome = await self._ask(request)
                self.spent.add(outcome)
                outcomes[place] = outcome
                heard()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._width, len(requests))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [outcome for outcome in outcomes if outcome is not None]

    async def _ask(self, request: Request) -> Outcome:
        key = request.key(self.endpoint.identity)
        known = self._log.get(key)
        if known is not None:
            return known
        if self._probe is None:
            self._probe = asyncio.ensure_future(self._client.probe())
        await asyncio.shield(self._probe)
        try:
            raw, seconds = await self._client.send(request)
        except RequestFailed as error:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                raise EndpointError(
                    f"endpoint {self.endpoint.base_url}: {self._failures} requests in a row failed,"
                    f" the last with: {error}. Finished replies are kept; run again when it works."
                ) from error
            return Outcome(
                key=key, status="filtered" if error.filtered else "failed", detail=str(error)
            )
        self._failures = 0
        # committed first, read after: whatever reading may do, the reply is kept
        standing = self._log.put(key, self.endpoint.identity, request, raw, seconds)
        outcome = read_reply(key, standing)
        assert outcome is not None  # the client lets nothing else through
        return outcome


def run(work: Coroutine[Any, Any, T]) -> T:
    """Result of `work`, also where the caller already runs an event loop, such as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    done: list[T] = []
    wrong: list[BaseException] = []

    def target() -> None:
        try:
            done.append(asyncio.run(work))
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if wrong:
        raise wrong[0]
    return done[0]
