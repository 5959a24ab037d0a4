"""Record batches in the request log: planned, submitted, and the outcome of each line.

A batch is written down with all its lines before anything is sent. Whatever a process was doing
when it was killed, the next one so knows which batches may exist at the endpoint, and which
requests may not be put into another.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from generators.llm.chat.request import Attempt
from generators.llm.log.request_log import Change, RequestLog, insert_attempt

_COUNTED = "counted"
"""Detail of a waiting line whose cost stands in the log already."""


class LineResult(NamedTuple):
    """The end of a line; `detail` says why there is no reply. `failed` is final, `lost` is not."""

    status: Literal["replied", "failed", "lost"]
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenBatch:
    """A batch whose lines are not all accounted for.

    Attributes:
        nonce: our number, which the batch carries at the endpoint.
        file_id: the uploaded lines; None if they may not be there.
        batch_id: the batch at the endpoint; None if it may not be there.
        prompts: key of each line → name of its prompt.
        intended_at: seconds since 1970.
    """

    nonce: str
    file_id: str | None
    batch_id: str | None
    prompts: Mapping[str, str]
    intended_at: int


class BatchLog:
    """Batches of one model at one endpoint.

    Every change is committed when its call returns.

    Args:
        log: the request log.
        address: the endpoint's, without secrets.
        model: the model's identity.
    """

    def __init__(self, log: RequestLog, address: str, model: str) -> None:
        self._log = log
        self._of = (address, model)

    def open_batches(self, wanted: Iterable[str]) -> list[OpenBatch]:
        """List those that hold a request whose key is `wanted`, the oldest first."""
        keys = set(wanted)
        found = []
        for nonce, file_id, batch_id, at in self._log.rows(
            "SELECT nonce, file_id, batch_id, CAST(strftime('%s', at) AS INTEGER) FROM batches "
            "WHERE address = ? AND model = ? AND state IN ('intended', 'submitted') ORDER BY at",
            self._of,
        ):
            lines = self._log.rows(
                "SELECT key, prompt FROM batch_items WHERE nonce = ? AND state = 'waiting'", [nonce]
            )
            if any(key in keys for key, _ in lines):
                found.append(
                    OpenBatch(
                        nonce=nonce,
                        file_id=file_id,
                        batch_id=batch_id,
                        prompts=dict(lines),
                        intended_at=at,
                    )
                )
        return found

    async def intend(self, nonce: str, prompts: Mapping[str, str]) -> None:
        """Record that a batch of these lines (key → name of the prompt) is about to be made."""

        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO batches (nonce, address, model, state) VALUES (?, ?, ?, 'intended')",
                [nonce, *self._of],
            )
            db.executemany(
                "INSERT INTO batch_items (nonce, key, prompt, state) VALUES (?, ?, ?, 'waiting')",
                [(nonce, key, prompt) for key, prompt in prompts.items()],
            )

        await self._committed(change)

    async def uploaded(self, nonce: str, file_id: str) -> None:
        """Record that the lines lie at the endpoint."""
        await self._execute("UPDATE batches SET file_id = ? WHERE nonce = ?", [file_id, nonce])

    async def submitted(self, nonce: str, batch_id: str) -> None:
        """Record that the batch is at the endpoint."""
        await self._execute(
            "UPDATE batches SET batch_id = ?, state = 'submitted' WHERE nonce = ?",
            [batch_id, nonce],
        )

    async def ended(
        self,
        nonce: str,
        state: Literal["collected", "failed", "unknown"],
        detail: str,
        results: Mapping[str, LineResult] | None = None,
    ) -> None:
        """Record that the batch has ended; lines without a result are lost."""

        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE batch_items SET state = 'lost', detail = ? WHERE nonce = ?", [detail, nonce]
            )
            db.executemany(
                "UPDATE batch_items SET state = ?, detail = ? WHERE nonce = ? AND key = ?",
                [(*result, nonce, key) for key, result in (results or {}).items()],
            )
            db.execute(
                "UPDATE batches SET state = ?, detail = ? WHERE nonce = ?", [state, detail, nonce]
            )

        await self._committed(change)

    def counted(self, nonce: str) -> set[str]:
        """Return the keys of lines without a usable reply whose cost stands in the log."""
        query = "SELECT key FROM batch_items WHERE nonce = ? AND detail = ?"
        return {key for (key,) in self._log.rows(query, [nonce, _COUNTED])}

    def count(self, nonce: str, attempt: Attempt) -> None:
        """Keep what a line without a usable reply cost; `counted` then has it."""

        def change(db: sqlite3.Connection) -> None:
            insert_attempt(db, attempt)
            db.execute(
                "UPDATE batch_items SET detail = ? WHERE nonce = ? AND key = ?",
                [_COUNTED, nonce, attempt.key],
            )

        self._log.change(change)

    async def _execute(self, statement: str, values: Sequence[Any]) -> None:
        await self._committed(lambda db: db.execute(statement, values))

    async def _committed(self, change: Change[Any]) -> None:
        """Wait until `change` is committed."""
        await asyncio.wrap_future(self._log.change(change))
