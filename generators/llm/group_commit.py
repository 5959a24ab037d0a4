"""Writes to SQLite from a thread of their own, many in one transaction.

A commit costs about the same for one row as for a hundred, so where many come those of a few
milliseconds share one. Whoever waits for a write is told only after it is committed.

The thread wants Python's lock as seldom as it can: while the event loop is busy, each time costs up
to 5 ms. So what is written is handed over as it goes into the tables, a group is a handful of
statements, and an event loop is woken once for all who wait in it.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

from core.errors import StorageError

Item = TypeVar("Item")
Waiting = Future[Any] | asyncio.Future[Any]

_MOST = 512
"""Writes in one transaction at most; other processes wait no longer than one takes."""
_BUSY = 4
"""Writes in a group from which the next one is gathered; below it each is committed at once."""
_GATHER_S = 0.005
"""How long the first of a group is then kept for others, in seconds."""
_CHECKPOINT_PAGES = 8_000
"""Pages in the WAL (of 4 KiB) from which they are moved into the database.

Keys are digests, so each write touches a page somewhere else in the tables: the longer pages gather
in the WAL, the more writes share one when it is moved.
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode to the WAL database `path`.

    Raises:
        sqlite3.Error: the file cannot be opened, or is no database.
    """
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    # NORMAL outlives the end of any process; only a power cut can cost the last replies
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    return db


class GroupCommit(Generic[Item]):
    """The writing thread of a database; close it to see all writes committed.

    Args:
        path: the database.
        write: writes a group within a transaction; returns a result for each item.
    """

    def __init__(
        self, path: Path, write: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[Any]]
    ) -> None:
        self._path = path
        self._write = write
        self._failed: Exception | None = None
        self._queue: queue.SimpleQueue[tuple[Waiting, Item] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Future[Any]:
        """Write `item` soon; the future has its result once it is committed.

        Raises:
            StorageError: here or in the future: an earlier write, or this one, failed.
        """
        future: Future[Any] = Future()
        # what is handed in is written, even if nobody waits for it any more
        future.set_running_or_notify_cancel()
        self._put(future, item)
        return future

    def submit_here(self, item: Item) -> asyncio.Future[Any]:
        """The same with a future of the running event loop."""
        future = asyncio.get_running_loop().create_future()
        self._put(future, item)
        return future

    def close(self) -> None:
        """Commit what is waiting and end the thread.

        Raises:
            StorageError: a write failed that nobody waited for.
        """
        self._queue.put(None)
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _put(self, future: Waiting, item: Item) -> None:
        if self._failed is not None:
            raise self._failed
        self._queue.put((future, item))

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        ended = False
        group: list[tuple[Waiting, Item]] = []
        while not ended:
            group, ended = self._group(gather=len(group) >= _BUSY)
            if not group:
                continue
            results: Sequence[Any] = ()
            try:
                db = db or connect(self._path)
                results = self._transaction(db, [item for _, item in group])
            except Exception as error:  # whoever waits must hear of it, whatever it is
                self._failed = self._worded(error)
            _tell([future for future, _ in group], results, self._failed)
        if db is not None:
            db.close()

    def _group(self, *, gather: bool) -> tuple[list[tuple[Waiting, Item]], bool]:
        """What is written together, and whether it is the last."""
        group: list[tuple[Waiting, Item]] = []
        entry = self._queue.get()
        if gather and entry is not None:
            time.sleep(_GATHER_S)
        while entry is not None:
            group.append(entry)
            if len(group) == _MOST or self._queue.empty():
                return group, False
            entry = self._queue.get()
        return group, True

    def _transaction(self, db: sqlite3.Connection, items: Sequence[Item]) -> Sequence[Any]:
        db.execute("BEGIN IMMEDIATE")
        try:
            results = self._write(db, items)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk may have ended it already
                db.execute("ROLLBACK")
            raise
        return results

    def _worded(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        worded = StorageError(
            f"{self._path}: cannot write ({error}). Finished replies are kept; free some space or "
            "mend the permissions and run again."
        )
        worded.__cause__ = error
        return worded


def _tell(futures: Sequence[Waiting], results: Sequence[Any], failed: Exception | None) -> None:
    """Give each its result, or all the failure."""
    here: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for place, future in enumerate(futures):
        result = None if failed else results[place]
        if isinstance(future, asyncio.Future):
            here.setdefault(future.get_loop(), []).append((future, result))
        elif failed:
            future.set_exception(failed)
        else:
            future.set_result(result)
    for loop, pairs in here.items():
        if not loop.is_closed():  # an ended loop has nobody left who waits
            loop.call_soon_threadsafe(_settle, pairs, failed)


def _settle(pairs: Sequence[tuple[asyncio.Future[Any], Any]], failed: Exception | None) -> None:
    for future, result in pairs:
        if future.done():
            continue
        if failed:
            future.set_exception(failed)
        else:
            future.set_result(result)
