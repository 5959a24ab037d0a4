"""Which requests of a list are new: the log is asked for each, a piece of the list at a time.

What is new is handed out one by one, as those who ask take it; so a long list is being asked while
the end of it has not been looked up yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from generators.llm.reply_json import Rejection, parse_reply
from generators.llm.request import Form, Outcome, Request
from generators.llm.request_log import RequestLog
from generators.llm.structured import correction_request, extract_json, with_schema_prompt

_AT_ONCE = 64
"""Requests that are looked up in one piece: a few milliseconds, in which nothing else happens."""


@dataclass(frozen=True, slots=True, eq=False)
class New:
    """A request without a final outcome.

    Attributes:
        request: as it is sent.
        key: the request's key.
        first: its reply, where the log has one that breaks its schema and the request that follows
            on it is new.
    """

    request: Request
    key: str
    first: Outcome | None = None


class Lookup:
    """One list of requests, and what becomes of them.

    Keys depend on the form in which an endpoint takes schemas. Where that is not known for sure,
    the form that was found last is taken, and `settle` asks the endpoint before anything new is
    handed out; if it says otherwise, the list is gone through again.

    Args:
        requests: the list.
        log: what was had before.
        model: the model's identity.
        form: what is taken for the look-up; None to settle it first.
        settle: finds out the form, given the one to try first; remembers it.
        count: told of each outcome out of the log.
        heard: told how many requests have their outcome now more.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        log: RequestLog,
        model: str,
        form: Form | None,
        settle: Callable[[Form | None], Awaitable[Form]],
        count: Callable[[Outcome], None],
        heard: Callable[[int], None],
    ) -> None:
        self.form = form
        self._requests = requests
        self._log = log
        self._model = model
        self._settle = settle
        self._count = count
        self._heard = heard
        self._settled = False
        self._keys: list[str] = []
        self._outcomes: dict[str, Outcome] = {}
        self._under_way: dict[str, int] = {}
        self._new: deque[New] = deque()
        self._untold: list[tuple[Outcome | None, int]] = []
        self._looking = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._requests)

    async def take(self) -> New | None:
        """The next request to ask; None after the last.

        Raises:
            EndpointError: the endpoint cannot be used.
        """
        while not self._new:
            async with self._looking:
                if self._new:
                    break
                if len(self._keys) == len(self._requests):
                    self._tell()
                    return None
                await self._look_up()
            await asyncio.sleep(0)  # progress bars and others have their turn
        return self._new.popleft()

    def came(self, key: str, outcome: Outcome) -> None:
        """`outcome` is final for the request `key`, and for all that are the same."""
        self._outcomes[key] = outcome
        self._heard(self._under_way.pop(key))

    def outcomes(self) -> list[Outcome]:
        """Outcomes in the order of the requests, once all have one."""
        return [self._outcomes[key] for key in self._keys]

    async def _look_up(self) -> None:
        form = self.form
        if form is None:
            form = await self._settle(None)
        start = len(self._keys)
        piece = [
            with_schema_prompt(request, form)
            for request in self._requests[start : start + _AT_ONCE]
        ]
        keys = [request.key(self._model) for request in piece]
        known = self._log.get_all(keys)
        new: list[New] = []
        for request, key in zip(piece, keys, strict=True):
            if key in self._outcomes:
                self._untold.append((None, 1))
            elif key in self._under_way:
                self._under_way[key] += 1
            else:
                found = self._found(request, key, known.get(key))
                if isinstance(found, New):
                    self._under_way[key] = 1
                    new.append(found)
                    self._untold.append((found.first, 0))
                else:
                    self._outcomes[key] = found
                    self._untold.append((found, 1))
        if new and not self._settled:
            self.form = await self._settle(form)
            self._settled = True
            if self.form != form:
                self._keys, self._outcomes = [], {}
                self._under_way, self._untold = {}, []
                return
        self.form = form
        self._keys += keys
        self._new += new
        if self._settled:
            self._tell()

    def _found(self, request: Request, key: str, known: Outcome | None) -> Outcome | New:
        """The final outcome out of the log; where it has none, what is to be asked."""
        if known is None:
            return New(request, key)
        first = extract_json(known, request.form)
        again = correction_of(request, first)
        if again is None:
            return first
        second = self._log.get(again.key(self._model))
        return New(request, key, first) if second is None else extract_json(second, request.form)

    def _tell(self) -> None:
        for outcome, answered in self._untold:
            if outcome is not None:
                self._count(outcome)
            self._heard(answered)
        self._untold.clear()


def correction_of(request: Request, outcome: Outcome) -> Request | None:
    """`request` once more, where the reply breaks its schema; None where it does not."""
    found = parse_reply(outcome, request.schema)
    if isinstance(found, Rejection) and found.reason == "malformed":
        return correction_request(request, outcome.content, found.detail)
    return None
