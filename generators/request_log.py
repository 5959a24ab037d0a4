"""Every finished LLM request, kept: a reply is paid for once.

One SQLite file in WAL mode. A reply is committed as it came, before anything reads it, so a kill at
any moment loses none that had arrived. Several processes may use the file at once; of two replies
to one request, the first stands for all.
"""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from types import TracebackType

from generators.errors import StorageError
from generators.files import storage_errors
from generators.llm_request import Outcome, Request, read_reply

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,           -- Request.key
    model TEXT NOT NULL,            -- the model's identity
    prompt TEXT NOT NULL,           -- name of the prompt
    body BLOB NOT NULL,             -- zlib of the raw HTTP body
    seconds REAL NOT NULL,          -- from sending to the last byte, retries left out
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;
"""


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
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # NORMAL outlives the end of any process; only a power cut can cost the last replies
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise StorageError(
                    f"{path}: request log of version {version}, expected {_VERSION}. "
                    "Move it away, or use the version of latentqa that wrote it."
                )
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except sqlite3.Error as error:
            raise StorageError(
                f"{path}: cannot be used as the request log ({error}). "
                "Move the file away, or make its folder writable."
            ) from error

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def get(self, key: str) -> Outcome | None:
        """What became of the request `key`; None if it never finished."""
        row = self._db.execute("SELECT body FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        return read_reply(key, zlib.decompress(row[0]).decode(), cached=True)

    def put(self, key: str, model: str, request: Request, raw: str, seconds: float) -> str:
        """Commit the raw body `raw` and return the one that stands for `key`.

        Raises:
            StorageError: the disk is full or read-only; finished replies are safe.
        """
        try:
            self._db.execute(
                "INSERT OR IGNORE INTO replies (key, model, prompt, body, seconds) "
                "VALUES (?, ?, ?, ?, ?)",
                (key, model, request.name, zlib.compress(raw.encode()), seconds),
            )
            row = self._db.execute("SELECT body FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"{self.path}: cannot write ({error}). Finished replies are kept; free some space "
                "or mend the permissions and run again."
            ) from error
        return zlib.decompress(row[0]).decode()
