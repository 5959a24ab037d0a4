"""Requests in, outcomes out: the log is asked first, the endpoint only for what is new."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from core.errors import EndpointError
from generators.llm.api import Api
from generators.llm.batch.batches import Batches
from generators.llm.budget import Budget, Usage
from generators.llm.endpoint import ResolvedEndpoint
from generators.llm.failures import RequestFailed
from generators.llm.lookup import Lookup, New, correction_of
from generators.llm.rate_limiter import AdaptiveRateLimiter
from generators.llm.request import Form, Outcome, Request, read_reply
from generators.llm.request_log import RequestLog
from generators.llm.sender import RequestSender
from generators.llm.structured import FORMS, extract_json

T = TypeVar("T")

_FAILURES_IN_A_ROW = 20


class LLMClient:
    """Asks one endpoint through one log, live or in batches.

    The endpoint is tried with a small request before the first that is new; a run that finds all
    its replies in the log needs no endpoint at all.

    Attributes:
        spent: what has been asked so far.
        form: how replies were held to their schemas; None before the first request.

    Args:
        endpoint: the LLM.
        log: where replies are kept.
        concurrency: most requests at once.
        say: told a line where `structured: auto` falls back, and of each batch.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        log: RequestLog,
        concurrency: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.endpoint = endpoint
        self.usage = Usage(price=endpoint.price, batch_share=endpoint.batch.price_share)
        self.form: Form | None = None
        self._log = log
        self._say = say
        self._most = min(concurrency, endpoint.slots or concurrency)
        self._pace = AdaptiveRateLimiter(
            self._most,
            # our own server's slots are known; nothing has to be found out
            adaptive=endpoint.slots is None,
            requests_per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._api = Api(endpoint)
        self._client = RequestSender(endpoint, self._pace, log.note, self._api)
        self._budget = Budget(endpoint.budget_usd, self.usage)
        self._batches = Batches(endpoint, log, self._api, self._budget, self.usage, say)
        self._settled: Form | None = None
        self._failures = 0

    @property
    def limit(self) -> float:
        """Live requests that may be under way now."""
        return self._pace.limit

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()
        await self._api.close()

    def words(self) -> str:
        """What was spent and how far batches are, for a progress line; may be empty."""
        return ", ".join(part for part in (self._batches.words(), self.usage.words()) if part)

    async def complete_all(
        self, requests: Sequence[Request], heard: Callable[[int], None] = lambda outcomes: None
    ) -> list[Outcome]:
        """Outcomes in the order of `requests`.

        A reply that breaks its schema is asked for once more; the outcome is then the second
        reply's. Requests that are the same are asked once.

        Args:
            requests: what to ask.
            heard: told how many outcomes there are now more; also 0, where a batch went on.

        Raises:
            EndpointError: the endpoint cannot be used, or has failed many times in a row.
            BudgetError: the money allowed is spent.
        """

        lookup = Lookup(
            requests,
            self._log,
            self.endpoint.identity,
            self._known_form(),
            self._settle,
            self.usage.add,
            heard,
        )
        if self.endpoint.mode == "batch":
            await self._in_batches(lookup, heard)
        else:
            await self._live(lookup.take, lookup)
        self.form = lookup.form
        return lookup.outcomes()

    async def _live(self, take: Callable[[], Awaitable[New | None]], lookup: Lookup) -> None:
        """Ask one by one what `take` gives."""

        async def work() -> None:
            while (new := await take()) is not None:
                lookup.came(new.key, await self._ask(new))

        try:
            with _old_things_left_alone():
                async with asyncio.TaskGroup() as group:
                    # twice the slots: one may wait to be committed, or to be tried again
                    for _ in range(min(2 * self._most, len(lookup))):
                        group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _in_batches(self, lookup: Lookup, heard: Callable[[int], None]) -> None:
        """Batches for all that is new, then for replies that are to be asked for once more."""
        new: list[New] = []
        while (found := await lookup.take()) is not None:
            new.append(found)
        left: dict[New, str] = {}
        if batched := len(new) >= self.endpoint.batch.smallest:
            new, left = await self._batched(new, lookup, heard)
            if not self.endpoint.batch.fall_back:
                _, more = await self._batched(new, lookup, heard)
                new, left = [], left | more
        if not batched or self.endpoint.batch.fall_back:
            waiting = deque([*new, *left])

            async def take() -> New | None:
                return waiting.popleft() if waiting else None

            await self._live(take, lookup)
            return
        for one, why in left.items():
            outcome = Outcome(key=one.key, status="failed", detail=why)
            self.usage.add(outcome)
            lookup.came(one.key, outcome)

    async def _batched(
        self, new: Iterable[New], lookup: Lookup, heard: Callable[[int], None]
    ) -> tuple[list[New], dict[New, str]]:
        """Put `new` into batches; what is to be asked once more, and what they left, with why."""
        sent: dict[str, tuple[New, Request]] = {}
        for one in new:
            again = None if one.first is None else correction_of(one.request, one.first)
            request, key = (one.request, one.key) if again is None else (again, self._key(again))
            sent[key] = one, request
        requests = {key: request for key, (_, request) in sent.items()}
        outcomes, left = await self._batches.ask(requests, lambda: heard(0))
        malformed: list[New] = []
        unanswered: dict[New, str] = {}
        for key, (one, _) in sent.items():
            if key not in outcomes:
                unanswered[one] = left[key]
                continue
            outcome = extract_json(outcomes[key], one.request.form)
            if one.first is None and correction_of(one.request, outcome) is not None:
                malformed.append(New(one.request, one.key, outcome))
            else:
                lookup.came(one.key, outcome)
        return malformed, unanswered

    def _known_form(self) -> Form | None:
        """The form of requests, as far as it is known without asking."""
        if self._settled is not None:
            return self._settled
        wanted = self.endpoint.structured
        if wanted != "auto":
            return wanted
        said = self._log.form(self.endpoint.identity)
        return next((form for form in FORMS if form == said), None)

    async def _settle(self, first: Form | None) -> Form:
        """Try the endpoint, once, and find the form that it takes."""
        if self._settled is None:
            auto = self.endpoint.structured == "auto"
            self._settled = await self._client.find_form(first or FORMS[0], fall_back=auto)
            if auto:
                self._log.remember_form(self.endpoint.identity, self._settled)
                if self._settled != FORMS[0]:
                    self._say(_fallen_back(self.endpoint.model, self._settled))
        return self._settled

    async def _ask(self, new: New) -> Outcome:
        outcome = new.first or await self._once(new.request, new.key)
        again = correction_of(new.request, outcome)
        return outcome if again is None else await self._once(again, self._key(again))

    async def _once(self, request: Request, key: str) -> Outcome:
        async with self._budget.room(request):
            outcome = extract_json(await self._send(request, key), request.form)
            self.usage.add(outcome)
        return outcome

    async def _send(self, request: Request, key: str) -> Outcome:
        try:
            reply = await self._client.send(request, key)
        except RequestFailed as error:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                raise EndpointError(
                    f"endpoint {self.endpoint.address}: {self._failures} requests in a row failed,"
                    f" the last with: {error}. Finished replies are kept; run again when it works.",
                    transient=True,
                ) from error
            return Outcome(
                key=key, status="filtered" if error.filtered else "failed", detail=str(error)
            )
        self._failures = 0
        # committed before anything is made of it: whatever that may do, the reply is kept
        standing = await self._log.put_here(
            self.endpoint.identity, request.name, reply.raw, reply.attempt
        )
        if standing is reply.raw:
            return reply.outcome
        outcome = read_reply(key, standing)  # another process had its reply first
        assert outcome is not None  # only chat completions are put into the log
        return outcome

    def _key(self, request: Request) -> str:
        return request.key(self.endpoint.identity)


@contextlib.contextmanager
def _old_things_left_alone() -> Iterator[None]:
    """What lives now is not searched for garbage in here.

    A search through some hundred thousand requests stops everything for longer than the replies
    that are still to come keep an endpoint busy.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _fallen_back(model: str, form: Form) -> str:
    used = {
        "schema": "JSON schemas",
        "json": "JSON mode, with the schema in the prompt",
        "prompt": "the prompt alone, with the schema in it",
    }[form]
    return f"generate.endpoint: {model} does not enforce JSON schemas; used is {used}."


def run_async(work: Coroutine[Any, Any, T]) -> T:
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
