"""Every LLM request, kept: a reply is paid for once, and every attempt at one is on record.

One SQLite file in WAL mode. A reply is committed as it came, before anything reads it, so a kill at
any moment loses none that had arrived. Several processes may use the file at once; of two replies
to one request, the first stands for all.

A later form of the file is reached by `_MIGRATIONS`, one script a version: logs are never thrown
away.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from core.errors import StorageError
from core.files import storage_errors
from generators.llm.group_commit import GroupCommit, connect
from generators.llm.request import Attempt, Outcome, read_reply

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
    """
-- a batched reply costs less
ALTER TABLE replies ADD COLUMN batched INTEGER NOT NULL DEFAULT 0;
CREATE TABLE IF NOT EXISTS batches (
    nonce TEXT PRIMARY KEY,         -- our number, which the batch carries in its metadata
    address TEXT NOT NULL,          -- the endpoint, without secrets
    model TEXT NOT NULL,            -- the model's identity
    state TEXT NOT NULL,            -- intended, submitted, collected, failed, unknown
    file_id TEXT,                   -- at the endpoint: the uploaded lines
    batch_id TEXT,                  -- at the endpoint
    detail TEXT NOT NULL DEFAULT '',
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch_items (
    nonce TEXT NOT NULL REFERENCES batches,
    key TEXT NOT NULL,              -- Request.key, and the line's custom_id
    prompt TEXT NOT NULL,           -- name of the prompt
    state TEXT NOT NULL,            -- waiting, replied, failed, lost
    detail TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (nonce, key)
) WITHOUT ROWID;
""",
    """
-- nothing here looks an attempt up by its key, and every request paid for it with a page
DROP INDEX IF EXISTS attempts_by_key;
""",
)
_AT_ONCE = 500
"""Keys in one query."""
_LEVEL = 1
"""Of compression: on replies of this size, higher ones only take longer."""
_REPLY = "replies (key, model, prompt, body, seconds, batched)"
_ATTEMPT = (
    "attempts (key, status, detail, headers, seconds, prompt_tokens, completion_tokens, cost)"
)


@dataclass(frozen=True, slots=True)
class _Put:
    reply: tuple[Any, ...]
    attempt: tuple[Any, ...]
    raw: str


@dataclass(frozen=True, slots=True)
class _Note:
    attempt: tuple[Any, ...]


Change = Callable[[sqlite3.Connection], Any]
"""Any other change of the log's tables."""


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
            if _version(self._db, path) < len(_MIGRATIONS):
                _migrate(self._db, path)
        except sqlite3.Error as error:
            raise StorageError(
                f"{path}: cannot be used as the request log ({error}). "
                "Move the file away, or make its folder writable."
            ) from error
        self._writer: GroupCommit[_Put | _Note | Change] = GroupCommit(path, _write)

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
            rows = self._db.execute(
                f"SELECT key, body, batched FROM replies WHERE key IN ({marks})", piece
            )
            for key, body, batched in rows:
                outcome = read_reply(key, _unpacked(body), cached=True, batched=bool(batched))
                if outcome is not None:
                    found[key] = outcome
        return found

    def put(
        self, model: str, prompt: str, raw: str, attempt: Attempt, *, batched: bool = False
    ) -> Future[str]:
        """Commit the raw body `raw` that `attempt` brought.

        Args:
            model: the model's identity.
            prompt: name of the request's prompt.
            raw: the HTTP body.
            attempt: what brought it.
            batched: whether it came in a batch.

        Returns:
            a future of the body that stands for `attempt.key`, had once it is committed.

        Raises:
            StorageError: here or in the future: the disk is full or read-only; finished replies
                are safe.
        """
        return self._writer.submit(_put(model, prompt, raw, attempt, batched))

    def put_here(self, model: str, prompt: str, raw: str, attempt: Attempt) -> asyncio.Future[str]:
        """`put` with a future of the running event loop, which is cheaper for many."""
        return self._writer.submit_here(_put(model, prompt, raw, attempt, False))

    def note(self, attempt: Attempt) -> None:
        """Keep an attempt that brought no reply.

        Raises:
            StorageError: the disk is full or read-only.
        """
        self._writer.submit(_Note(_attempt_row(attempt)))

    def change(self, change: Change) -> Future[Any]:
        """Carry out `change` in a transaction; a future of its result, had once it is committed.

        Raises:
            StorageError: here or in the future: the disk is full or read-only.
        """
        return self._writer.submit(change)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query, for those who keep tables of their own in the log."""
        return self._db.execute(query, values).fetchall()

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


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if not 0 <= version <= len(_MIGRATIONS):
        raise StorageError(
            f"{path}: request log of version {version}, expected at most {len(_MIGRATIONS)}. "
            "Move it away, or use the version of latentqa that wrote it."
        )
    return version


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to their newest form, all in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        # read once more: another process may have done it meanwhile
        for script in _MIGRATIONS[_version(db, path) :]:
            for statement in _statements(script):
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has ended it already
            db.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """The statements of `script`; SQLite's own way to run it would commit before it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _put(model: str, prompt: str, raw: str, attempt: Attempt, batched: bool) -> _Put:
    body = zlib.compress(raw.encode(), _LEVEL)
    reply = (attempt.key, model, prompt, body, attempt.seconds, int(batched))
    return _Put(reply, _attempt_row(attempt), raw)


def _attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    headers = attempt.headers
    return (
        attempt.key,
        attempt.status,
        attempt.detail,
        json.dumps(dict(headers), sort_keys=True) if headers else "{}",
        attempt.seconds,
        attempt.prompt_tokens,
        attempt.completion_tokens,
        attempt.cost,
    )


def _write(db: sqlite3.Connection, items: Sequence[_Put | _Note | Change]) -> list[Any]:
    puts = [item for item in items if isinstance(item, _Put)]
    new = _insert(db, f"INSERT OR IGNORE INTO {_REPLY}", [put.reply for put in puts])
    _insert(
        db,
        f"INSERT INTO {_ATTEMPT}",
        [item.attempt for item in items if isinstance(item, _Put | _Note)],
    )
    stand = {} if new == len(puts) else _standing(db, [put.reply[0] for put in puts])
    return [
        stand.get(item.reply[0], item.raw)
        if isinstance(item, _Put)
        else None
        if isinstance(item, _Note)
        else item(db)
        for item in items
    ]


def _insert(db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """How many of `rows` are new, all in one statement."""
    if not rows:
        return 0
    one = f"({','.join('?' * len(rows[0]))})"
    values = [value for row in rows for value in row]
    return db.execute(f"{into} VALUES {','.join([one] * len(rows))}", values).rowcount


def _standing(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, str]:
    """The bodies that stand for `keys`."""
    marks = ",".join("?" * len(keys))
    rows = db.execute(f"SELECT key, body FROM replies WHERE key IN ({marks})", keys)
    return {key: _unpacked(body) for key, body in rows}


def _unpacked(body: bytes) -> str:
    return zlib.decompress(body).decode()
