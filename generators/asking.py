"""Requests in, outcomes out: the log is asked first, the endpoint only for what is new."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from generators.client import Client, RequestFailed
from generators.endpoint import ResolvedEndpoint
from generators.errors import EndpointError
from generators.llm_request import Form, Outcome, Request, read_reply
from generators.pace import Pace
from generators.quality import Fault, read_json
from generators.request_log import RequestLog
from generators.spending import Budget, Spent
from generators.structured import FORMS, dressed, reasked, undressed

T = TypeVar("T")

_FAILURES_IN_A_ROW = 20
_AT_ONCE = 500
"""Requests that are looked up in one piece."""


class Asker:
    """Asks one endpoint through one log, live, as fast as the endpoint takes it.

    The endpoint is tried with a small request before the first that is new; a run that finds all
    its replies in the log needs no endpoint at all.

    Attributes:
        spent: what has been asked so far.
        form: how replies were held to their schemas; None before the first request.

    Args:
        endpoint: the LLM.
        log: where replies are kept.
        concurrency: most requests at once.
        say: told a line where `structured: auto` falls back.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        log: RequestLog,
        concurrency: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.endpoint = endpoint
        self.spent = Spent(price=endpoint.price)
        self.form: Form | None = None
        self._log = log
        self._say = say
        self._most = min(concurrency, endpoint.slots or concurrency)
        pace = Pace(
            self._most,
            # our own server's slots are known; nothing has to be found out
            adaptive=endpoint.slots is None,
            requests_per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._client = Client(endpoint, pace, log.note)
        self._budget = Budget(endpoint.budget_usd, self.spent)
        self._settled: Form | None = None
        self._failures = 0

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    async def ask_all(
        self, requests: Sequence[Request], heard: Callable[[], None] = lambda: None
    ) -> list[Outcome]:
        """Outcomes in the order of `requests`; `heard` is called after each.

        A reply that breaks its schema is asked for once more; the outcome is then the second
        reply's. Requests that are the same are asked once.

        Raises:
            EndpointError: the endpoint cannot be used, or has failed many times in a row.
            BudgetError: the money allowed is spent.
        """
        sent, outcomes, missing = await self._look_up(requests)
        for outcome in outcomes.values():
            self.spent.add(outcome)
            heard()

        waiting = iter(missing.items())

        async def work() -> None:
            for key, places in waiting:
                outcome = await self._ask(sent[places[0]], key)
                for place in places:
                    outcomes[place] = outcome
                    heard()

        try:
            async with asyncio.TaskGroup() as group:
                # twice the slots: one may wait to be committed, or to be tried again
                for _ in range(min(2 * self._most, len(missing))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [outcomes[place] for place in range(len(requests))]

    async def _look_up(
        self, requests: Sequence[Request]
    ) -> tuple[list[Request], dict[int, Outcome], dict[str, list[int]]]:
        """The requests as they are sent, what the log has, and by key what is to be asked.

        Keys depend on the form in which an endpoint takes schemas. Where that is to be found out,
        what was found last is taken for the look-up, and tried again before anything is sent.
        """
        form = self._known_form()
        while True:
            if form is None:
                form = await self._settle()
            sent = [dressed(request, form) for request in requests]
            outcomes: dict[int, Outcome] = {}
            missing: dict[str, list[int]] = {}
            for start in range(0, len(sent), _AT_ONCE):
                places = range(start, min(start + _AT_ONCE, len(sent)))
                keys = [sent[place].key(self.endpoint.identity) for place in places]
                known = self._log.get_all(keys)
                for place, key in zip(places, keys, strict=True):
                    outcome = self._final(sent[place], known.get(key))
                    if outcome is None:
                        missing.setdefault(key, []).append(place)
                    else:
                        outcomes[place] = outcome
                await asyncio.sleep(0)  # progress bars and others have their turn
            if not missing or form == await self._settle(form):
                self.form = form
                return sent, outcomes, missing
            form = self._settled

    def _known_form(self) -> Form | None:
        """The form of requests, as far as it is known without asking."""
        if self._settled is not None:
            return self._settled
        wanted = self.endpoint.structured
        if wanted != "auto":
            return wanted
        said = self._log.form(self.endpoint.identity)
        return next((form for form in FORMS if form == said), None)

    async def _settle(self, first: Form = FORMS[0]) -> Form:
        """Try the endpoint, once, and find the form that it takes."""
        if self._settled is None:
            auto = self.endpoint.structured == "auto"
            self._settled = await self._client.find_form(first, fall_back=auto)
            if auto:
                self._log.remember_form(self.endpoint.identity, self._settled)
                if self._settled != FORMS[0]:
                    self._say(_fallen_back(self.endpoint.model, self._settled))
        return self._settled

    def _final(self, request: Request, known: Outcome | None) -> Outcome | None:
        """What the log has of `request`, asked once more if need be; None if it lacks anything."""
        if known is None:
            return None
        first = undressed(known, request.form)
        again = _asked_again(request, first)
        if again is None:
            return first
        second = self._log.get(again.key(self.endpoint.identity))
        return None if second is None else undressed(second, request.form)

    async def _ask(self, request: Request, key: str) -> Outcome:
        outcome = await self._had(request, key)
        again = _asked_again(request, outcome)
        if again is None:
            return outcome
        return await self._had(again, again.key(self.endpoint.identity))

    async def _had(self, request: Request, key: str) -> Outcome:
        known = self._log.get(key)
        if known is not None:
            outcome = undressed(known, request.form)
            self.spent.add(outcome)
            return outcome
        async with self._budget.room(request):
            outcome = undressed(await self._send(request, key), request.form)
            self.spent.add(outcome)
        return outcome

    async def _send(self, request: Request, key: str) -> Outcome:
        try:
            raw, attempt = await self._client.send(request, key)
        except RequestFailed as error:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                raise EndpointError(
                    f"endpoint {self.endpoint.address}: {self._failures} requests in a row failed,"
                    f" the last with: {error}. Finished replies are kept; run again when it works."
                ) from error
            return Outcome(
                key=key, status="filtered" if error.filtered else "failed", detail=str(error)
            )
        self._failures = 0
        # committed first, read after: whatever reading may do, the reply is kept
        standing = await asyncio.wrap_future(
            self._log.put(self.endpoint.identity, request, raw, attempt)
        )
        outcome = read_reply(key, standing)
        assert outcome is not None  # the client lets nothing else through
        return outcome


def _asked_again(request: Request, outcome: Outcome) -> Request | None:
    """`request` once more, where the reply breaks its schema; None where it does not."""
    found = read_json(outcome, request.schema)
    if isinstance(found, Fault) and found.reason == "malformed":
        return reasked(request, outcome.content, found.detail)
    return None


def _fallen_back(model: str, form: Form) -> str:
    used = {
        "schema": "JSON schemas",
        "json": "JSON mode, with the schema in the prompt",
        "prompt": "the prompt alone, with the schema in it",
    }[form]
    return f"generate.endpoint: {model} does not enforce JSON schemas; used is {used}."


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
