"""Read what a batch brought: each reply is committed as it was, whatever becomes of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

from core.errors import EndpointError
from generators.llm.batch.lines import BatchLine, read_line
from generators.llm.batch.log import BatchLog, LineResult, OpenBatch
from generators.llm.chat.failures import (
    RequestFailed,
    error_from_response,
    one_line,
)
from generators.llm.chat.reply import paid_tokens, read_reply
from generators.llm.chat.request import Attempt
from generators.llm.endpoint.prices import NO_TOKENS, TokenCounts
from generators.llm.endpoint.resolve import ResolvedEndpoint, redact_body, redact_secrets
from generators.llm.log.request_log import RequestLog
from generators.llm.sending.openai_client import BatchState, EndpointApi

FILTERED = "filtered: "
"""What the reason of a line starts with whose request a content filter refused."""
_UNCOMMITTED = 1000
"""Replies that are read ahead of what is committed."""


class BatchResults:
    """The files of one batch that has ended.

    Args:
        endpoint: the LLM.
        log: where replies are kept.
        batches: where batches and their lines are kept.
        batch: its lines.
        state: as the endpoint sees it.
        most: tokens that a request can have taken, by its key, as far as they are known.

    Attributes:
        results: what became of each line that was read; `committed` makes it true.
        lost: tokens that lines can have taken without a usable reply.
        unknown_lines: lines that belong to no request of the batch.
        fatal: what a line says that will refuse others too, such as a key that was withdrawn.
    """

    def __init__(
        self,
        endpoint: ResolvedEndpoint,
        log: RequestLog,
        batches: BatchLog,
        batch: OpenBatch,
        state: BatchState,
        most: Mapping[str, TokenCounts],
    ) -> None:
        self.results: dict[str, LineResult] = {}
        self.lost: list[TokenCounts] = []
        self.unknown_lines = 0
        self.fatal: EndpointError | None = None
        self._endpoint = endpoint
        self._log = log
        self._prompts = batch.prompts
        self._most = most
        self._seconds = max(0.0, (state.ended_at or state.created_at) - state.created_at)
        # an earlier run may have been killed while it collected
        self._had = set(log.get_all(list(batch.prompts)))
        self._counted = batches.counted(batch.nonce)
        self._count = partial(batches.count, batch.nonce)
        self._uncommitted: list[Future[str]] = []

    async def read(self, api: EndpointApi, file_id: str) -> None:
        """Read a file; one that is read again adds nothing twice, and what was read is kept."""
        async for raw in api.lines(file_id):
            line = read_line(raw)
            if line is None or line.key not in self._prompts:
                self.unknown_lines += 1
            elif line.key not in self.results:
                self.results[line.key] = self._result(line)
                if len(self._uncommitted) >= _UNCOMMITTED:
                    await self.committed()

    async def committed(self) -> None:
        """Wait until all that was read is committed."""
        waiting, self._uncommitted = self._uncommitted, []
        for future in waiting:
            await asyncio.wrap_future(future)

    def _result(self, line: BatchLine) -> LineResult:
        if line.key in self._had:
            return LineResult("replied")
        body = redact_body(self._endpoint, line.body)
        most = self._most.get(line.key, NO_TOKENS)
        outcome = read_reply(line.key, body, most=most) if line.status == 200 else None
        if outcome is not None:
            cost = self._endpoint.cost(outcome.tokens, batched=True)
            attempt = self._attempt(line, cost=cost, tokens=outcome.tokens)
            self._uncommitted.append(
                self._log.put(
                    self._endpoint.identity, self._prompts[line.key], body, attempt, batched=True
                )
            )
            return LineResult("replied")
        result = self._without_reply(line, body)
        lost = paid_tokens(body, most) if line.status == 200 else None
        if lost is None:
            self._log.note(self._attempt(line, detail=result.detail))
        elif line.key not in self._counted:
            self.lost.append(lost)
            cost = self._endpoint.cost(lost, batched=True)
            self._count(self._attempt(line, detail=result.detail, cost=cost, tokens=lost))
        return result

    def _without_reply(self, line: BatchLine, body: str) -> LineResult:
        if line.status is None:
            return LineResult("lost", one_line(body)[:160])
        error = error_from_response(self._endpoint, line.status, {}, body)
        if isinstance(error, RequestFailed):
            return LineResult("failed", (FILTERED if error.filtered else "") + str(error))
        if isinstance(error, EndpointError):
            self.fatal = error
        return LineResult("lost", str(error))

    def _attempt(
        self,
        line: BatchLine,
        *,
        detail: str = "",
        cost: float | None = None,
        tokens: TokenCounts = NO_TOKENS,
    ) -> Attempt:
        number = redact_secrets(self._endpoint, line.request_id)
        return Attempt(
            key=line.key,
            status=line.status,
            seconds=self._seconds,
            detail=detail,
            headers={"x-request-id": number} if number else {},
            tokens=tokens,
            cost=cost,
        )
