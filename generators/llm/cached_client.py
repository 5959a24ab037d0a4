"""Complete requests: from the log where it has a reply, from the endpoint where it has none."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence

from core.errors import EndpointError, StorageError
from generators.llm.batch.batches import BatchClient
from generators.llm.chat.failures import RequestFailed
from generators.llm.chat.reply import Outcome, read_reply
from generators.llm.chat.request import Form, Request
from generators.llm.chat.structured import FORMS, correction_request, read_content
from generators.llm.endpoint.resolve import ResolvedEndpoint
from generators.llm.form_finder import FormFinder
from generators.llm.job import CompletionJob, PendingRequest
from generators.llm.log.claims import RequestClaims
from generators.llm.log.request_log import RequestLog, StoredReply
from generators.llm.sending.rate_limiter import AdaptiveRateLimiter
from generators.llm.sending.sender import RequestSender

_MOST_FAILURES_IN_A_ROW = 20
_REQUESTS_PER_LOOKUP = 500
"""Requests that are looked up in one piece: some milliseconds, in which nothing else happens."""
_POLL_S = 0.2
"""Seconds between two polls of requests that another process has in flight."""


class LLMClient:
    """Sends requests to one endpoint, live or in batches, and caches replies in one log.

    The endpoint is tried with a small request before the first that is new; a run that finds all
    its replies in the log needs no endpoint at all. A request that another process is asking at the
    moment is waited for.

    Attributes:
        usage: what has been asked so far, here and by calls of a task pool.
        form: how replies were held to their schemas; None before the first request.
        asked: keys of the requests whose replies are new.

    Args:
        endpoint: the LLM.
        log: where replies are kept.
        concurrency: most requests at once.
        say: told a line where something is not as configured, and of each batch.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        log: RequestLog,
        concurrency: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.endpoint = endpoint
        self.log_path = log.path
        self.concurrency = concurrency
        self.asked: set[str] = set()
        self.form: Form | None = None
        self._log = log
        self._claims = RequestClaims(log)
        self._say = say
        self._most = min(concurrency, endpoint.slots or concurrency)
        limiter = AdaptiveRateLimiter(
            self._most,
            # our own server's slots are known; nothing has to be found out
            adaptive=endpoint.slots is None,
            requests_per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._sender = RequestSender(endpoint, limiter, log, say)
        self._budget = self._sender.budget
        self.usage = self._budget.usage
        self._batches = BatchClient(self._sender)
        self._forms = FormFinder(self._sender)
        self._failures = 0
        self._known_losses: set[str] = set()
        self._warned = False

    @property
    def budget_left(self) -> float | None:
        """US dollars that may still be spent; None where there is no limit."""
        return self._budget.left

    async def close(self) -> None:
        """Close connections, and let others ask what is unfinished."""
        await self._sender.api.close()
        with contextlib.suppress(StorageError):  # a log that cannot be written has told so
            self._claims.release_all()

    def status_line(self) -> str:
        """Say what was spent and how far batches are; may be empty."""
        return ", ".join(filter(None, (self._batches.status(), self.usage.summary())))

    async def complete_all(
        self, requests: Sequence[Request], report: Callable[[int], None] = lambda outcomes: None
    ) -> list[Outcome]:
        """Complete `requests`; the outcomes come in their order.

        A reply that breaks its schema is asked for once more; the outcome is then the second
        reply's. Requests that are the same are asked once.

        Args:
            requests: what to ask.
            report: told how many outcomes there are now more; also 0, where a batch went on.

        Raises:
            EndpointError: the endpoint cannot be used, or has failed many times in a row.
            BudgetError: the money allowed is spent.
        """
        self._warn_of_other_servers()
        if requests and requests[0].form == "tokens":
            self._forms.settled = "tokens"  # there is no schema whose form had to be found
        form = self._forms.look_up()
        if form is None and requests:
            form = await self._forms.find(FORMS[0], requests[0])
        while True:
            job = CompletionJob(requests, form or FORMS[0], self.endpoint.identity, report)
            found = await self._run(job)
            if found is None:
                self.form = form
                return job.in_order()
            form = found

    async def _run(self, job: CompletionJob) -> Form | None:
        """Send the requests of a job; again in another form where the endpoint refuses its form."""
        async with self._claims.kept_alive():
            while job.pending:
                looked_up_at = time.monotonic()
                unanswered = await self._look_up(job)
                asked = {one.key: one.asked_key for one in unanswered}
                mine = await asyncio.wrap_future(self._claims.claim(asked)) if asked else set()
                if mine and self._forms.settled is None:
                    form = await self._forms.find(job.form, next(iter(job.pending.values())))
                    if form != job.form:
                        self._claims.release(mine)
                        return form
                self._count_found(job)
                todo = [one for one in unanswered if one.key in mine]
                if todo and self.endpoint.mode == "batch":
                    await self._in_batches(todo, job)
                elif todo:
                    await self._live(todo, job)
                elif job.pending:  # others are asking what is left
                    await asyncio.sleep(max(_POLL_S, 4 * (time.monotonic() - looked_up_at)))
        return None

    async def _look_up(self, job: CompletionJob) -> list[PendingRequest]:
        """Finish what the log has final outcomes for; the rest is without one."""
        unanswered: list[PendingRequest] = []
        pending = list(job.pending.items())
        asked = set(job.pending)
        for start in range(0, len(pending), _REQUESTS_PER_LOOKUP):
            piece = dict(pending[start : start + _REQUESTS_PER_LOOKUP])
            stored = self._log.get_all(list(piece))
            for key, request in piece.items():
                first = self._read(request, key, stored.get(key))
                again = None if first is None else correction_request(request, first)
                outcome, asked_key = first, key
                if again is not None:
                    asked_key = self._key(again)
                    outcome = self._read(again, asked_key, self._log.get(asked_key))
                    asked.add(asked_key)
                job.found[key] = [one for one in (first, outcome) if one is not None]
                if outcome is None:
                    unanswered.append(PendingRequest(request, key, first, asked_key))
                else:
                    job.finish(key, outcome, tell=False)
            await asyncio.sleep(0)  # progress bars and others have their turn
        self._count_earlier_losses(asked)
        return unanswered

    def _count_earlier_losses(self, keys: set[str]) -> None:
        """Count what earlier runs may have paid for without a usable reply, each once."""
        if self.budget_left is None or not (new := keys - self._known_losses):
            return
        self._known_losses |= new
        for key, loss in self._log.losses().items():
            if key in new:
                self.usage.add_cost(Outcome.lost(key, *loss))

    def _count_found(self, job: CompletionJob) -> None:
        """Count the replies that were found in the log, each once."""
        for key, replies in job.found.items():
            if key not in job.counted and key not in self.asked and replies:
                job.counted.add(key)
                for reply in {id(one): one for one in replies}.values():
                    self.usage.add(reply)
        job.found.clear()
        job.tell()

    def _read(self, request: Request, key: str, stored: StoredReply | None) -> Outcome | None:
        """Read a reply of the log."""
        if stored is None:
            return None
        most = request.max_usage(self.endpoint.thinking_tokens)
        found = read_reply(key, stored.raw, most=most, cached=True, batched=stored.batched)
        if found is None:  # only chat completions are put into the log
            detail = "the log holds a reply that cannot be read"
            return Outcome(key=key, status="failed", detail=detail, cached=True)
        return read_content(request, dataclasses.replace(found, paid=stored.cost))

    async def _live(self, todo: Sequence[PendingRequest], job: CompletionJob) -> None:
        """Ask `todo` one by one, as many at once as the rate limiter lets through."""
        waiting = iter(todo)

        async def work() -> None:
            for one in waiting:
                outcome = await self._complete(one)
                if outcome.status != "failed":
                    self.asked.add(one.key)
                job.finish(one.key, outcome)
                self._claims.release([one.key])

        try:
            async with asyncio.TaskGroup() as group:
                # twice the slots: one may wait to be committed, or to be tried again
                for _ in range(min(2 * self._most, len(todo))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _in_batches(self, todo: Sequence[PendingRequest], job: CompletionJob) -> None:
        """Put `todo` into batches, then the corrections of replies that break their schema."""
        settings = self.endpoint.batch
        left: dict[PendingRequest, str] = {}
        live: list[PendingRequest] = list(todo)
        if len(todo) >= settings.smallest:
            malformed, left = await self._batched(todo, job)
            if settings.fall_back:
                live = [*malformed, *left]
            else:
                _, more = await self._batched(malformed, job)
                live, left = [], left | more
        if live:
            await self._live(live, job)
        else:
            for one, why in left.items():
                outcome = Outcome(key=one.key, status="failed", detail=why)
                self.usage.add(outcome)
                job.finish(one.key, outcome)
        self._claims.release([one.key for one in todo])

    async def _batched(
        self, todo: Iterable[PendingRequest], job: CompletionJob
    ) -> tuple[list[PendingRequest], dict[PendingRequest, str]]:
        """Complete `todo` in batches.

        Returns:
            those whose replies break their schema, and those without a reply, with why.
        """
        sent: dict[str, tuple[PendingRequest, Request]] = {}
        for one in todo:
            again = None if one.first is None else correction_request(one.request, one.first)
            request = again or one.request
            sent[self._key(request)] = one, request
        requests = {key: request for key, (_, request) in sent.items()}
        outcomes, left = await self._batches.complete(requests, lambda: job.report(0))
        malformed: list[PendingRequest] = []
        unanswered: dict[PendingRequest, str] = {}
        for key, (one, _) in sent.items():
            if key not in outcomes:
                unanswered[one] = left[key]
                continue
            outcome = read_content(one.request, outcomes[key])
            if one.first is None and correction_request(one.request, outcome) is not None:
                malformed.append(PendingRequest(one.request, one.key, outcome))
            else:
                job.finish(one.key, outcome)
        return malformed, unanswered

    async def _complete(self, one: PendingRequest) -> Outcome:
        outcome = one.first or await self._ask(one.request, one.key)
        again = correction_request(one.request, outcome)
        return outcome if again is None else await self._ask(again, self._key(again))

    async def _ask(self, request: Request, key: str) -> Outcome:
        self._known_losses.add(key)
        async with self._budget.room(request):
            outcome = read_content(request, await self._send(request, key))
            self.usage.add(outcome)
        return outcome

    async def _send(self, request: Request, key: str) -> Outcome:
        try:
            reply = await self._sender.send(request, key)
        except RequestFailed as error:
            self._failures += 1
            if self._failures >= _MOST_FAILURES_IN_A_ROW:
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
        standing = await asyncio.wrap_future(
            self._log.put(self.endpoint.identity, request.name, reply.raw, reply.attempt)
        )
        if standing is reply.raw:
            return reply.outcome
        # another process had its reply first
        most = request.max_usage(self.endpoint.thinking_tokens)
        return read_reply(key, standing, most=most) or reply.outcome

    def _key(self, request: Request) -> str:
        return request.key(self.endpoint.identity)

    # others that use the log

    def _warn_of_other_servers(self) -> None:
        """Say where replies of another server would be taken for this one's."""
        known = {one.address for one in self._log.endpoints(self.endpoint.identity)}
        others = sorted(known - {self.endpoint.address})
        known_by_more = self.endpoint.identity.startswith((f"{self.endpoint.model}@", "gguf:"))
        if others and not self._warned and not known_by_more:
            self._say(
                f"generate.endpoint: the log has replies of {self.endpoint.model!r} from "
                f"{others[0]} too, and they serve for {self.endpoint.address}. If these differ, "
                "tell them apart with generate.endpoint.revision."
            )
        self._warned = True
