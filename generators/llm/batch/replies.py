"""Reading what a batch brought: each reply is committed as it was, whatever becomes of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future

from core.errors import EndpointError
from generators.llm.api import BatchState
from generators.llm.batch.lines import Line, read_line
from generators.llm.batch.log import Fate, OpenBatch
from generators.llm.endpoint import ResolvedEndpoint
from generators.llm.failures import RequestFailed, error_from_response, one_line, redact_secrets
from generators.llm.request import Attempt, read_reply
from generators.llm.request_log import RequestLog

FILTERED = "filtered: "
"""What the reason of a line starts with whose request a content filter refused."""
_UNCOMMITTED = 1000
"""Replies that are read ahead of what is committed."""


class BatchReading:
    """The files of one batch that has ended.

    Attributes:
        fates: what became of each line that was read; `committed` makes it true.
        strange: lines that belong to no request of the batch.
        fatal: what a line says that will refuse others too, such as a key that was withdrawn.
    """

    def __init__(
        self, endpoint: ResolvedEndpoint, log: RequestLog, batch: OpenBatch, state: BatchState
    ) -> None:
        self.fates: dict[str, Fate] = {}
        self.strange = 0
        self.fatal: EndpointError | None = None
        self._endpoint = endpoint
        self._log = log
        self._prompts = batch.prompts
        self._seconds = max(0.0, (state.ended_at or state.created_at) - state.created_at)
        # an earlier run may have been killed while it collected
        self._had = set(log.get_all(list(batch.prompts)))
        self._uncommitted: list[Future[str]] = []

    async def read(self, lines: AsyncIterator[bytes]) -> None:
        """Read a file; one that is read again adds nothing twice.

        Raises:
            what `lines` raises; what was read before is kept.
        """
        async for raw in lines:
            line = read_line(raw)
            if line is None or line.key not in self._prompts:
                self.strange += 1
            elif line.key not in self.fates:
                self.fates[line.key] = self._fate(line)
                if len(self._uncommitted) >= _UNCOMMITTED:
                    await self.committed()

    async def committed(self) -> None:
        """Wait until all that was read is committed."""
        waiting, self._uncommitted = self._uncommitted, []
        for future in waiting:
            await asyncio.wrap_future(future)

    def _fate(self, line: Line) -> Fate:
        if line.key in self._had:
            return "replied", ""
        body = redact_secrets(self._endpoint, line.body)
        outcome = read_reply(line.key, body) if line.status == 200 else None
        if outcome is not None:
            tokens = outcome.prompt_tokens, outcome.completion_tokens
            attempt = self._attempt(
                line, cost=self._endpoint.cost(*tokens, batched=True), tokens=tokens
            )
            self._uncommitted.append(
                self._log.put(
                    self._endpoint.identity, self._prompts[line.key], body, attempt, batched=True
                )
            )
            return "replied", ""
        fate = self._refused(line, body)
        self._log.note(self._attempt(line, detail=fate[1]))
        return fate

    def _refused(self, line: Line, body: str) -> Fate:
        if line.status == 200:
            return "lost", f"the reply is no chat completion: {one_line(body)[:80]!r}"
        if line.status is None:
            return "lost", one_line(body)[:160]
        trouble = error_from_response(self._endpoint, line.status, {}, body)
        if isinstance(trouble, RequestFailed):
            return "failed", (FILTERED if trouble.filtered else "") + str(trouble)
        if isinstance(trouble, EndpointError):
            self.fatal = trouble
        return "lost", str(trouble)

    def _attempt(
        self,
        line: Line,
        *,
        detail: str = "",
        cost: float | None = None,
        tokens: tuple[int, int] = (0, 0),
    ) -> Attempt:
        number = redact_secrets(self._endpoint, line.request_id)
        return Attempt(
            key=line.key,
            status=line.status,
            seconds=self._seconds,
            detail=detail,
            headers={"x-request-id": number} if number else {},
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            cost=cost,
        )
