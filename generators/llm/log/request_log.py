"""Keep every LLM request: a reply is paid for once, and every attempt at one is on record.

One SQLite file in WAL mode. A reply is committed as it came, before anything reads it, so a kill at
any moment loses none that had arrived. Several processes may use the file at once: of two replies
to one request the first stands for all, and a request that one process has claimed the others wait
for. All writes go through one thread, a transaction each.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from core.errors import StorageError
from core.files import storage_errors
from generators.llm.chat.request import Attempt
from generators.llm.endpoint.prices import TokenCounts

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
"""A change of the log's tables, within a transaction."""

_VERSION = 5
_TABLES = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY,           -- Request.key
    model TEXT NOT NULL,            -- the model's identity
    prompt TEXT NOT NULL,           -- name of the prompt
    body BLOB NOT NULL,             -- zlib of the raw HTTP body
    seconds REAL NOT NULL,          -- from sending to the last byte, retries left out
    batched INTEGER NOT NULL,       -- came in a batch, which costs less
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;
CREATE TABLE attempts (
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
CREATE TABLE endpoints (
    model TEXT NOT NULL,            -- the model's identity
    address TEXT NOT NULL,          -- the endpoint, without secrets
    form TEXT NOT NULL,             -- how it was last found to take schemas
    dialect TEXT NOT NULL,          -- JSON: the fields that it was found to take
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (model, address)
) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY,           -- Request.key
    owner TEXT NOT NULL             -- who is asking it now
) WITHOUT ROWID;
CREATE TABLE owners (
    owner TEXT PRIMARY KEY,
    beat REAL NOT NULL              -- when it was last seen alive, in seconds since 1970
) WITHOUT ROWID;
CREATE TABLE batches (
    nonce TEXT PRIMARY KEY,         -- our number, which the batch carries in its metadata
    address TEXT NOT NULL,          -- the endpoint, without secrets
    model TEXT NOT NULL,            -- the model's identity
    state TEXT NOT NULL,            -- intended, submitted, collected, failed, unknown
    file_id TEXT,                   -- at the endpoint: the uploaded lines
    batch_id TEXT,                  -- at the endpoint
    detail TEXT NOT NULL DEFAULT '',
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;
CREATE TABLE batch_items (
    nonce TEXT NOT NULL REFERENCES batches,
    key TEXT NOT NULL,              -- Request.key, and the line's custom_id
    prompt TEXT NOT NULL,           -- name of the prompt
    state TEXT NOT NULL,            -- waiting, replied, failed, lost
    detail TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (nonce, key)
) WITHOUT ROWID;
"""
_INDEX = "CREATE INDEX IF NOT EXISTS attempts_by_key ON attempts (key)"
_KEYS_PER_QUERY = 500
_COMPRESSION = 1
"""Of replies: on bodies of this size higher levels only take longer."""


class StoredReply(NamedTuple):
    """A raw HTTP body of the log, whether it came in a batch, and what it cost in US dollars."""

    raw: str
    batched: bool
    cost: float | None
    """None where the price was not known."""


class Loss(NamedTuple):
    """What attempts without a usable reply can have taken at most, and cost in US dollars."""

    tokens: TokenCounts
    cost: float | None
    """None where the price was not known."""


class KnownEndpoint(NamedTuple):
    """Form of structured output and dialect that a model at an address accepts."""

    address: str
    form: str
    dialect: str


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
            self._db, self._writer_db = _connect(path), _connect(path)
            _create_tables(self._db, path)
        except sqlite3.OperationalError as error:  # a full or a read-only disk
            raise self._worded(error) from error
        except sqlite3.Error as error:
            raise StorageError(
                f"{path}: cannot be used as the request log ({error}). Move the file away."
            ) from error
        self._failure: Exception | None = None
        self._writer = ThreadPoolExecutor(1, "request log")

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.shutdown()
        self._db.close()
        self._writer_db.close()
        if self._failure is not None:
            raise self._failure

    def get(self, key: str) -> StoredReply | None:
        """Look up the reply under `key`."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Sequence[str]) -> dict[str, StoredReply]:
        """Look up the replies under those of `keys` that have one."""
        query = (
            "SELECT key, body, batched, (SELECT cost FROM attempts WHERE key = replies.key "
            "AND detail = '' ORDER BY id LIMIT 1) FROM replies WHERE key IN ({})"
        )
        return {
            key: StoredReply(_unpacked(body), bool(batched), cost)
            for key, body, batched, cost in rows_in_pieces(self._db, query, keys)
        }

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
        body = zlib.compress(raw.encode(), _COMPRESSION)

        def change(db: sqlite3.Connection) -> str:
            new = db.execute(
                "INSERT OR IGNORE INTO replies (key, model, prompt, body, seconds, batched) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (attempt.key, model, prompt, body, attempt.seconds, int(batched)),
            ).rowcount
            insert_attempt(db, attempt)
            if new:
                return raw
            found = db.execute("SELECT body FROM replies WHERE key = ?", (attempt.key,)).fetchone()
            return _unpacked(found[0])

        return self.change(change)

    def note(self, attempt: Attempt) -> None:
        """Keep an attempt that brought no reply.

        Raises:
            StorageError: the disk is full or read-only.
        """
        self.change(lambda db: insert_attempt(db, attempt))

    def losses(self) -> dict[str, Loss]:
        """Return what attempts without a usable reply can have taken at most, by request."""
        query = (
            "SELECT key, sum(prompt_tokens), sum(completion_tokens), "
            "CASE WHEN count(cost) = count(*) THEN sum(cost) END FROM attempts "
            "WHERE detail != '' AND prompt_tokens + completion_tokens > 0 GROUP BY key"
        )
        return {
            key: Loss(TokenCounts(prompt=prompt, completion=completion), cost)
            for key, prompt, completion, cost in self.rows(query)
        }

    def change(self, change: Change[T]) -> Future[T]:
        """Carry out `change` in a transaction; a future of its result, had once it is committed.

        Raises:
            StorageError: here or in the future: the disk is full or read-only.
        """
        if self._failure is not None:
            raise self._failure
        future: Future[T] = Future()
        # what is handed in is written, even if nobody waits for it any more
        future.set_running_or_notify_cancel()
        self._writer.submit(self._write, change, future)
        return future

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Fetch the rows of a query, for those who keep tables of their own in the log."""
        return self._db.execute(query, values).fetchall()

    def endpoints(self, model: str) -> list[KnownEndpoint]:
        """List what was found out about `model`, what was found last first."""
        found = self.rows(
            "SELECT address, form, dialect FROM endpoints WHERE model = ? ORDER BY at DESC",
            (model,),
        )
        return [KnownEndpoint(*row) for row in found]

    def remember_endpoint(self, model: str, known: KnownEndpoint) -> None:
        """Keep what was found out, so that the next run knows it without asking.

        Raises:
            StorageError: the disk is full or read-only.
        """
        self.change(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO endpoints (model, address, form, dialect) "
                "VALUES (?, ?, ?, ?)",
                (model, *known),
            )
        )

    def _write(self, change: Change[T], future: Future[T]) -> None:
        """Carry out a change in the writing thread; after a failure none is tried any more."""
        try:
            if self._failure is None:
                future.set_result(transaction(self._writer_db, change))
        except Exception as error:  # the waiting caller gets it, whatever it is
            self._failure = self._worded(error)
        if self._failure is not None:
            future.set_exception(self._failure)

    def _worded(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        worded = StorageError(
            f"{self.path}: cannot write ({error}). Finished replies are kept; free some space or "
            "mend the permissions and run again."
        )
        worded.__cause__ = error
        return worded


def _connect(path: Path) -> sqlite3.Connection:
    """Open the WAL database `path` in autocommit mode.

    Raises:
        sqlite3.Error: the file cannot be opened, or is no database.
    """
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    # NORMAL outlives the end of any process; only a power cut can cost the last replies
    db.execute("PRAGMA synchronous=NORMAL")
    return db


def _create_tables(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables of an empty file.

    Raises:
        StorageError: the file holds a log of another version.
    """
    if _version(db, path) == _VERSION:
        with contextlib.suppress(sqlite3.OperationalError):  # on a disk that cannot be written
            db.execute(_INDEX)
        return

    def create(db: sqlite3.Connection) -> None:
        # read once more: another process may have done it meanwhile
        if _version(db, path) != _VERSION:
            for statement in _TABLES.split(";\n"):
                db.execute(statement)
            db.execute(_INDEX)
            db.execute(f"PRAGMA user_version={_VERSION}")

    transaction(db, create)


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, _VERSION):
        raise StorageError(
            f"{path}: request log of version {version}, expected {_VERSION}. Move it away, or use "
            "the version of latentqa that wrote it."
        )
    return version


def transaction(db: sqlite3.Connection, change: Change[T]) -> T:
    """Carry out `change` whole or not at all; returns its result."""
    db.execute("BEGIN IMMEDIATE")
    try:
        result = change(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have ended it already
            db.execute("ROLLBACK")
        raise
    return result


def rows_in_pieces(
    db: sqlite3.Connection, query: str, keys: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Fetch the rows of `query`, whose `{}` stands for some hundred of `keys` at a time."""
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        piece = list(keys[start : start + _KEYS_PER_QUERY])
        yield from db.execute(query.format(",".join("?" * len(piece))), piece).fetchall()


def insert_attempt(db: sqlite3.Connection, attempt: Attempt) -> None:
    """Write an attempt into the table of attempts."""
    db.execute(
        "INSERT INTO attempts (key, status, detail, headers, seconds, prompt_tokens, "
        "completion_tokens, cost) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.key,
            attempt.status,
            attempt.detail,
            json.dumps(dict(attempt.headers), sort_keys=True),
            attempt.seconds,
            attempt.tokens.prompt,
            attempt.tokens.completion,
            attempt.cost,
        ),
    )


def _unpacked(body: bytes) -> str:
    return zlib.decompress(body).decode()
