"""Writes to SQLite from a thread of their own, many in one transaction where many wait.

A commit costs about the same for one row as for a hundred, so under load those that wait share
one. Whoever waits for a write is told only after it is committed.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from generators.errors import StorageError

Write = Callable[[sqlite3.Connection], Any]

_MOST = 256
"""Writes in one transaction at most; other processes wait no longer than one takes."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode to the WAL database `path`.

    Raises:
        sqlite3.Error: the file cannot be opened, or is no database.
    """
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    # NORMAL outlives the end of any process; only a power cut can cost the last replies
    db.execute("PRAGMA synchronous=NORMAL")
    return db


class GroupCommit:
    """The writing thread of the database `path`; close it to see all writes committed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed: Exception | None = None
        self._queue: queue.SimpleQueue[tuple[Future[Any], Write] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> Future[Any]:
        """Carry out `write` soon; the future has its result once it is committed.

        Raises:
            StorageError: here or in the future: an earlier write, or this one, failed.
        """
        if self._failed is not None:
            raise self._failed
        future: Future[Any] = Future()
        # what is handed in is written, even if nobody waits for it any more
        future.set_running_or_notify_cancel()
        self._queue.put((future, write))
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

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        ended = False
        while not ended:
            waiting = [self._queue.get()]
            while len(waiting) < _MOST and not self._queue.empty():
                waiting.append(self._queue.get())
            ended = None in waiting
            batch = [entry for entry in waiting if entry is not None]
            try:
                db = db or connect(self._path)
                results = _transaction(db, [write for _, write in batch])
            except Exception as error:  # whoever waits must hear of it, whatever it is
                self._failed = self._worded(error)
                for future, _ in batch:
                    future.set_exception(self._failed)
            else:
                for (future, _), result in zip(batch, results, strict=True):
                    future.set_result(result)
        if db is not None:
            db.close()

    def _worded(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        worded = StorageError(
            f"{self._path}: cannot write ({error}). Finished replies are kept; free some space or "
            "mend the permissions and run again."
        )
        worded.__cause__ = error
        return worded


def _transaction(db: sqlite3.Connection, writes: list[Write]) -> list[Any]:
    db.execute("BEGIN IMMEDIATE")
    try:
        results = [write(db) for write in writes]
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have ended it already
            db.execute("ROLLBACK")
        raise
    return results
