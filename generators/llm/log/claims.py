"""Claim requests, so that two experiments that want the same replies pay for them once.

A claim is a row of the request log. Its owner counts as alive while it writes heartbeats and its
process is not known to have ended; claims of ended processes can be taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Future

from core.errors import StorageError
from core.liveness import is_running, machine_name
from generators.llm.log.request_log import RequestLog, rows_in_pieces

HEARTBEAT_S = 2.0
"""Seconds between two heartbeats of an owner that holds claims."""
_DEAD_AFTER_S = 15.0


class RequestClaims:
    """The claims of one client on requests of a log."""

    def __init__(self, log: RequestLog) -> None:
        self._log = log
        self._owner = f"{machine_name()}:{os.getpid()}:{secrets.token_hex(4)}"

    def claim(self, asked: Mapping[str, str]) -> Future[set[str]]:
        """Claim requests that nobody alive has claimed.

        Args:
            asked: key of each request → key of what is to be asked for it: the same, or that of the
                correction of a reply that breaks its schema.

        Returns:
            a future of the requests' keys that are ours now: the others have their reply, or are
            in flight in another live process.
        """
        keys = list(asked)

        def change(db: sqlite3.Connection) -> set[str]:
            now = time.time()
            self._write_heartbeat(db, now)
            alive = {
                owner
                for owner, beat in db.execute("SELECT owner, beat FROM owners")
                if _is_alive(owner, beat, now)
            }
            query = "SELECT key, owner FROM claims WHERE key IN ({})"
            taken = {
                key
                for key, owner in rows_in_pieces(db, query, keys)
                if owner in alive and owner != self._owner
            }
            query = "SELECT key FROM replies WHERE key IN ({})"
            replied = {key for (key,) in rows_in_pieces(db, query, list(asked.values()))}
            ours = {key for key in keys if key not in taken and asked[key] not in replied}
            db.executemany(
                "INSERT OR REPLACE INTO claims (key, owner) VALUES (?, ?)",
                [(key, self._owner) for key in ours],
            )
            return ours

        return self._log.change(change)

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Write a heartbeat every `HEARTBEAT_S` seconds while the context is open."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                self._log.change(lambda db: self._write_heartbeat(db, time.time()))

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()
            # a log that cannot be written fails for those who wait for their replies as well
            with contextlib.suppress(asyncio.CancelledError, StorageError):
                await task

    def release(self, keys: Iterable[str]) -> None:
        """Give up claims: each has its reply in the log now, or may be asked by others."""
        ended = [(key, self._owner) for key in keys]
        self._log.change(
            lambda db: db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", ended)
        )

    def release_all(self) -> None:
        """Give up all claims."""

        def change(db: sqlite3.Connection) -> None:
            for table in ("claims", "owners"):
                db.execute(f"DELETE FROM {table} WHERE owner = ?", (self._owner,))

        self._log.change(change)

    def _write_heartbeat(self, db: sqlite3.Connection, now: float) -> None:
        db.execute("INSERT OR REPLACE INTO owners (owner, beat) VALUES (?, ?)", (self._owner, now))


def _is_alive(owner: str, beat: float, now: float) -> bool:
    host, pid, _ = owner.rsplit(":", 2)
    if now - beat > _DEAD_AFTER_S:
        return False
    return host != machine_name() or is_running(int(pid))
