"""Requests through an endpoint's batch API, in three short steps that any later run can take up.

*Submit*: a batch and its lines are recorded with a nonce, the lines are uploaded, and the batch is
created with the nonce. *Poll*: until it has ended. *Collect*: its output and error files are read,
and each reply is committed, then the outcome of every line.
A run that was killed between making a batch and writing that down finds it at the endpoint by its
nonce, so none is made twice. What a batch left without a reply (expired, lost, an error of the
server's) goes into another one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from core.errors import EndpointError
from generators.llm.batch.lines import request_line, split_into_files
from generators.llm.batch.log import BatchLog, LineResult, OpenBatch
from generators.llm.batch.results import FILTERED, BatchResults
from generators.llm.chat.failures import (
    RequestFailed,
    TransientError,
    backoff_delay_s,
    endpoint_error,
    one_line,
    retry_with_backoff,
)
from generators.llm.chat.reply import Outcome, Status, read_reply
from generators.llm.chat.request import Request
from generators.llm.endpoint.prices import TokenCounts
from generators.llm.endpoint.resolve import redact_secrets
from generators.llm.sending.openai_client import BatchState, NotFoundError
from generators.llm.sending.sender import RequestSender

T = TypeVar("T")

_ENDED = ("completed", "failed", "expired", "cancelled")
_UNHEARD_S = 86_400
"""How much older than our intent a batch may look: clocks differ, but not by a day."""
_NEVER_SENT = "never submitted"


class BatchedOutcomes(NamedTuple):
    """What batches brought for some requests.

    Attributes:
        outcomes: by the request's key.
        unanswered: key of each other request to why its last batch brought no reply.
    """

    outcomes: dict[str, Outcome]
    unanswered: dict[str, str]


class BatchClient:
    """Batches of the endpoint and the log of `sender`, told of in its lines and its budget."""

    def __init__(self, sender: RequestSender) -> None:
        self.endpoint = sender.endpoint
        self._sender = sender
        self._log = sender.log
        self._batches = BatchLog(sender.log, self.endpoint.address, self.endpoint.identity)
        self._api = sender.api
        self._budget = sender.budget
        self._say = sender.say
        self._under_way: dict[str, tuple[int, int]] = {}

    def status(self) -> str:
        """Say how far the batches under way are, for a progress line; empty if there are none."""
        if not self._under_way:
            return ""
        done, total = (sum(part) for part in zip(*self._under_way.values(), strict=True))
        return f"{len(self._under_way)} under way at the endpoint, {done:,} of {total:,} lines done"

    async def complete(
        self, requests: Mapping[str, Request], looked: Callable[[], None]
    ) -> BatchedOutcomes:
        """Send requests in batches and wait for them, again where a batch leaves some unanswered.

        Args:
            requests: key → request as it is sent; none of them has a reply in the log.
            looked: told after each look at a batch.

        Raises:
            EndpointError: the endpoint has no batch API, or a batch failed as a whole.
            BudgetError: the money allowed is spent.
        """
        outcomes: dict[str, Outcome] = {}
        left: dict[str, str] = {}
        rounds: Counter[str] = Counter()
        while True:
            wanted = {
                key: request
                for key, request in requests.items()
                if key not in outcomes and rounds[key] < self.endpoint.batch.rounds
            }
            under_way = await self.submit(wanted)
            if not under_way:
                return BatchedOutcomes(outcomes, left)
            async for batch, state in self.poll(under_way, looked):
                most = {
                    key: requests[key].max_usage(self.endpoint.thinking_tokens)
                    for key in batch.prompts
                    if key in requests
                }
                results = await self.collect(batch, state, most)
                rounds.update(list(batch.prompts))
                mine = {key: found for key, found in results.items() if key in wanted}
                outcomes |= self._outcomes(mine, requests)
                left |= {key: one.detail for key, one in mine.items() if one.status == "lost"}
                left = {key: why for key, why in left.items() if key not in outcomes}

    # submit

    async def submit(self, requests: Mapping[str, Request]) -> list[OpenBatch]:
        """Submit batches that hold `requests`: those under way from before count, too.

        Where the budget has no room for all, some are left for when others have come in.
        """
        found = [await self._found_or_made(batch) for batch in self._batches.open_batches(requests)]
        under_way = [batch for batch in found if batch is not None]
        waiting = {key for batch in under_way for key in batch.prompts}
        new = self._affordable(requests, waiting)
        limits = self.endpoint.batch
        dialect = self._sender.dialect
        lines = (
            (key, request_line(key, dialect.body(requests[key], self.endpoint))) for key in new
        )
        for keys, file in split_into_files(
            lines, most_lines=limits.requests, most_bytes=int(limits.megabytes * 1e6)
        ):
            batch = OpenBatch(
                nonce=secrets.token_hex(12),
                file_id=None,
                batch_id=None,
                prompts={key: requests[key].name for key in keys},
                intended_at=int(time.time()),
            )
            await self._batches.intend(batch.nonce, batch.prompts)
            name = f"latentqa-{batch.nonce}.jsonl"
            file_id = await self._call_required(partial(self._api.upload, name, file))
            await self._batches.uploaded(batch.nonce, file_id)
            under_way.append(await self._create(dataclasses.replace(batch, file_id=file_id)))
        return under_way

    def _affordable(self, requests: Mapping[str, Request], waiting: Iterable[str]) -> list[str]:
        """List the keys of requests that are in no batch and that the budget has room for."""
        share = self.endpoint.batch.price_share
        under_way = set(waiting)
        taken = sum(self._budget.most(requests[key]) for key in under_way if key in requests)
        new: list[str] = []
        for key, request in requests.items():
            if key in under_way:
                continue
            most = self._budget.most(request)
            if not self._budget.fits(share * (taken + most)):
                if not under_way and not new:
                    raise self._budget.exceeded(share * most)
                break
            taken += most
            new.append(key)
        return new

    async def _found_or_made(self, batch: OpenBatch) -> OpenBatch | None:
        """Find or make the batch of an earlier run at the endpoint; None if it never was there."""
        if batch.batch_id is not None:
            return batch
        state = await self._call_required(partial(self._find, batch))
        if state is not None:
            return await self._submitted(batch, state, "found again")
        if batch.file_id is not None:
            return await self._create(batch)
        await self._batches.ended(batch.nonce, "failed", _NEVER_SENT)
        return None

    async def _create(self, batch: OpenBatch) -> OpenBatch:
        """Make the batch of an uploaded file."""
        file_id = batch.file_id
        assert file_id is not None

        async def attempt() -> BatchState:
            try:
                return await self._api.create_batch(file_id, batch.nonce, "24h")
            except TransientError:
                # it may have been made all the same: to ask again could make a second
                found = await self._find(batch)
                if found is None:
                    raise
                return found

        return await self._submitted(batch, await self._call_required(attempt), "submitted")

    async def _submitted(self, batch: OpenBatch, state: BatchState, how: str) -> OpenBatch:
        await self._batches.submitted(batch.nonce, state.id)
        self._say(
            f"generate: batch {state.id} {how}, {len(batch.prompts):,} requests; a batch may take "
            "a day. Stop at any time: the next run goes on here."
        )
        return dataclasses.replace(batch, batch_id=state.id)

    async def _find(self, batch: OpenBatch) -> BatchState | None:
        async for state in self._api.batches():
            if state.nonce == batch.nonce:
                return state
            if state.created_at < batch.intended_at - _UNHEARD_S:
                break
        return None

    # poll

    async def poll(
        self, batches: Iterable[OpenBatch], looked: Callable[[], None]
    ) -> AsyncIterator[tuple[OpenBatch, BatchState | None]]:
        """Yield each of `batches` as soon as it has ended; None stands for one that is gone."""
        waiting = list(batches)
        self._under_way = {batch.nonce: (0, len(batch.prompts)) for batch in waiting}
        try:
            while True:
                for batch in tuple(waiting):
                    state = await self._state(batch)
                    if state is not None:
                        self._under_way[batch.nonce] = (state.done, len(batch.prompts))
                    if state is None or state.status in _ENDED:
                        waiting.remove(batch)
                        yield batch, state
                        del self._under_way[batch.nonce]
                    looked()
                if not waiting:
                    return
                await asyncio.sleep(self.endpoint.batch.poll_s)
        finally:
            self._under_way = {}

    async def _state(self, batch: OpenBatch) -> BatchState | None:
        batch_id = batch.batch_id
        assert batch_id is not None
        try:
            return await self._call(partial(self._api.batch, batch_id))
        except NotFoundError:
            if self.endpoint.batch.resubmit_unknown:
                return None
            raise endpoint_error(
                self.endpoint,
                f"does not know batch {batch_id}, which was submitted to it with "
                f"{len(batch.prompts):,} requests",
                "Use the key of that account, or give the batch up with "
                "generate.endpoint.batch.resubmit_unknown: true.",
            ) from None

    # collect

    async def collect(
        self, batch: OpenBatch, state: BatchState | None, most: Mapping[str, TokenCounts]
    ) -> dict[str, LineResult]:
        """Commit all that an ended batch brought; count what lines cost without a usable reply.

        Args:
            batch: its lines.
            state: as the endpoint sees it; None where it does not know it any more.
            most: tokens that a request can have taken, by its key.

        Returns:
            what became of each of its lines, by key.

        Raises:
            EndpointError: the batch failed as a whole, or was cancelled, or its lines
                were refused for a reason that will refuse others too. What it brought is kept.
        """
        if state is None:
            why = "the endpoint does not know the batch any more"
            await self._batches.ended(batch.nonce, "unknown", why)
            return dict.fromkeys(batch.prompts, LineResult("lost", why))
        failure = one_line(redact_secrets(self.endpoint, state.failure))[:300]
        if state.status == "failed":
            await self._batches.ended(batch.nonce, "failed", failure)
            raise endpoint_error(
                self.endpoint,
                f"failed batch {state.id} ({failure or 'no reason given'})",
                "Where too much waits at once, lower generate.endpoint.batch.requests; run again.",
            )
        reading = BatchResults(self.endpoint, self._log, self._batches, batch, state, most)
        for file in (state.output_file, state.error_file):
            if file is not None:
                try:
                    await self._call(partial(reading.read, self._api, file))
                except NotFoundError:
                    self._say(f"generate: batch {state.id}: its file {file} is not there.")
        await reading.committed()
        for tokens in reading.lost:
            self._budget.usage.add_cost(
                Outcome(key="", status="failed", tokens=tokens, estimated=True, batched=True)
            )
        why = f"batch {state.status}, without a line for the request"
        lost = LineResult("lost", why)
        results = {key: reading.results.get(key, lost) for key in batch.prompts}
        await self._batches.ended(batch.nonce, "collected", state.status, results)
        counts = Counter(one.status for one in results.values())
        self._say(
            f"generate: batch {state.id} {state.status}: {counts['replied']:,} replies, "
            f"{counts['failed']:,} refused, {counts['lost']:,} without a reply"
            + (f", {reading.unknown_lines:,} lines of nobody" if reading.unknown_lines else "")
            + "."
        )
        if reading.fatal is not None:
            raise reading.fatal
        if state.status == "cancelled":
            raise endpoint_error(
                self.endpoint,
                f"cancelled batch {state.id}, as somebody asked it to",
                "Its finished replies are kept; run again to submit the others.",
            )
        return results

    def _outcomes(
        self, results: Mapping[str, LineResult], requests: Mapping[str, Request]
    ) -> dict[str, Outcome]:
        replied = [key for key, one in results.items() if one.status == "replied"]
        outcomes: dict[str, Outcome] = {}
        for key, stored in self._log.get_all(replied).items():
            most = requests[key].max_usage(self.endpoint.thinking_tokens)
            outcome = read_reply(key, stored.raw, most=most, batched=stored.batched)
            if outcome is not None:
                outcomes[key] = outcome
        for key, one in results.items():
            if one.status == "failed":
                status: Status = "filtered" if one.detail.startswith(FILTERED) else "failed"
                detail = one.detail.removeprefix(FILTERED)
                outcomes[key] = Outcome(key=key, status=status, detail=detail)
        for outcome in outcomes.values():
            self._budget.usage.add(outcome)
        return outcomes

    async def _call_required(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the API, where HTTP 404 says that there are no batches at all."""
        try:
            return await self._call(call)
        except NotFoundError as missing:
            raise self._no_batches(str(missing)) from None

    def _no_batches(self, why: str) -> EndpointError:
        return endpoint_error(
            self.endpoint,
            f"takes no batch ({why})",
            "If it has no batch API, set generate.endpoint.mode: live.",
        )

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the API, again where that may help."""
        try:
            return await retry_with_backoff(
                call,
                lambda tried, error: tried > self.endpoint.retries,
                lambda tried, error: backoff_delay_s(tried, error, self.endpoint.backoff_s),
            )
        except TransientError as error:
            raise endpoint_error(
                self.endpoint,
                f"has stopped answering about batches ({error})",
                "Submitted batches continue there; run again to collect them.",
            ) from None
        except RequestFailed as refused:
            raise self._no_batches(str(refused)) from None
