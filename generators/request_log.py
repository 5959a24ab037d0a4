"""Every LLM request, kept: a reply is paid for once, and every attempt at one is on record.

One SQLite file in WAL mode. A reply is committed as it came, before anything reads it, so a kill at
any moment loses none that had arrived. Several processes may use the file at once; of two replies
to one request, the first stands for all.

A later form of the file is reached by `_MIGRATIONS`, one script a version: logs are never thrown
away.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from generators.errors import StorageError
from generators.files import storage_errors
from generators.group_commit import GroupCommit, connect
from generators.llm_request import Attempt, Outcome, Request, read_reply

_MIGRATIONS = (
    """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,           -- Request.key
    model TEXT NOT NULL,            -- the model's identity
    prompt TEXT NOT NULL,           -- name of the prompt
    body BLOB NOT NULL,             -- zlib of the raw HTTP body
    seconds REAL NOT NULL,          -- from sending to the last byte, retries left out
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;
""",
    """
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,              -- Request.key
    status INTEGER,                 -- HTTP; null where no response came
    detail TEXT NOT NULL,           -- what went wrong; empty for a reply
    headers TEXT NOT NULL,          -- JSON: rate limits, the request's number at the endpoint
    seconds REAL NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost REAL,                      -- US dollars; null where the price is unknown
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX IF NOT EXISTS attempts_by_key ON attempts (key);
CREATE TABLE IF NOT EXISTS forms (
    model TEXT PRIMARY KEY,         -- the model's identity
    form TEXT NOT NULL              -- how `structured: auto` last found that it takes schemas
) WITHOUT ROWID;
""",
)
_AT_ONCE = 500
"""Keys in one query."""


class RequestLog:
    """The log in the file `path`, made if absent; a context manager.

    Raises:
        StorageError: the file cannot be opened or written, or is no such log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = connect(path)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not 0 <= version <= len(_MIGRATIONS):
                raise StorageError(
                    f"{path}: request log of version {version}, expected at most "
                    f"{len(_MIGRATIONS)}. Move it away, or use the version of latentqa that "
                    "wrote it."
                )
            for number in range(version, len(_MIGRATIONS)):
                self._db.executescript(
                    f"BEGIN IMMEDIATE;{_MIGRATIONS[number]}PRAGMA user_version={number + 1};COMMIT;"
                )
        except sqlite3.Error as error:
            raise StorageError(
                f"{path}: cannot be used as the request log ({error}). "
                "Move the file away, or make its folder writable."
            ) from error
        self._writer = GroupCommit(path)

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.close()
        finally:
            self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def get(self, key: str) -> Outcome | None:
        """What became of the request `key`; None if it never finished."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """What became of the requests `keys`, by key; those that never finished are left out."""
        found: dict[str, Outcome] = {}
        for start in range(0, len(keys), _AT_ONCE):
            piece = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(piece))
            rows = self._db.execute(f"SELECT key, body FROM replies WHERE key IN ({marks})", piece)
            for key, body in rows:
                outcome = read_reply(key, _unpacked(body), cached=True)
                if outcome is not None:
                    found[key] = outcome
        return found

    def put(self, model: str, request: Request, raw: str, attempt: Attempt) -> Future[str]:
        """Commit the raw body `raw` that `attempt` brought.

        Returns:
            a future of the body that stands for `attempt.key`, had once it is committed.

        Raises:
            StorageError: here or in the future: the disk is full or read-only; finished replies
                are safe.
        """

        def write(db: sqlite3.Connection) -> str:
            new = db.execute(
                "INSERT OR IGNORE INTO replies (key, model, prompt, body, seconds) "
                "VALUES (?, ?, ?, ?, ?)",
                (attempt.key, model, request.name, zlib.compress(raw.encode()), attempt.seconds),
            ).rowcount
            _note(db, attempt)
            if new:
                return raw
            row = db.execute("SELECT body FROM replies WHERE key = ?", (attempt.key,)).fetchone()
            return _unpacked(row[0])

        return self._writer.submit(write)

    def note(self, attempt: Attempt) -> None:
        """Keep an attempt that brought no reply.

        Raises:
            StorageError: the disk is full or read-only.
        """
        self._writer.submit(lambda db: _note(db, attempt))

    def form(self, model: str) -> str | None:
        """How `model` was last found to take schemas; None if that was never tried."""
        row = self._db.execute("SELECT form FROM forms WHERE model = ?", (model,)).fetchone()
        return None if row is None else str(row[0])

    def remember_form(self, model: str, form: str) -> None:
        """Keep how `model` takes schemas, so that the next run knows its keys without asking.

        Raises:
            StorageError: the disk is full or read-only.
        """
        self._writer.submit(
            lambda db: db.execute("INSERT OR REPLACE INTO forms VALUES (?, ?)", (model, form))
        )


def _note(db: sqlite3.Connection, attempt: Attempt) -> None:
    db.execute(
        "INSERT INTO attempts (key, status, detail, headers, seconds, prompt_tokens, "
        "completion_tokens, cost) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.key,
            attempt.status,
            attempt.detail,
            json.dumps(dict(attempt.headers), sort_keys=True),
            attempt.seconds,
            attempt.prompt_tokens,
            attempt.completion_tokens,
            attempt.cost,
        ),
    )


def _unpacked(body: bytes) -> str:
    return zlib.decompress(body).decode()
