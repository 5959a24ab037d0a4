"""Which writer is at which shard, so that several writers do each shard once.

A lease is a promise with an end. It ends when its shard is committed, when its process is gone, or
when it has not been renewed in time, as of a writer that hangs. The result never rests on it: a
shard is whole when its commit record says so, and two writers of a shard write the same bytes.

```
leases/lock          held for the moment in which the table changes
leases/table.json    {shard: [writer, process, end]}
```
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from core.errors import LatentQAError
from core.files import storage_errors

FOLDER = "leases"
_TABLE = "table.json"
SECONDS = 300.0
"""How long a lease holds without being renewed; that is looked after at each forward pass, and
while one is waited for."""

_Table = dict[str, tuple[str, int, float]]


class LeaseLost(LatentQAError):
    """A writer came back to a shard that had been given to another in the meantime."""


class Leases:
    """The leases of one writer among those of others at the same store.

    Args:
        root: the store's folder.
        seconds: how long a lease holds without being renewed.
    """

    def __init__(self, root: Path, *, seconds: float = SECONDS) -> None:
        self._folder = root / FOLDER
        self._seconds = seconds
        self._writer = uuid.uuid4().hex
        self._renewed: dict[int, float] = {}

    def take(self, shards: Iterable[int]) -> int | None:
        """The first of `shards` that no living writer is at, leased; None where there is none."""
        with self._table() as table:
            for shard in shards:
                if str(shard) not in table:
                    table[str(shard)] = self._entry(shard)
                    return shard
        return None

    def keep(self, shard: int) -> None:
        """Renew the lease of `shard` if a tenth of its time is gone.

        Raises: as `renew`.
        """
        if time.time() - self._renewed.get(shard, 0.0) >= self._seconds / 10:
            self.renew(shard)

    def renew(self, shard: int) -> None:
        """Hold `shard` for as long again.

        Raises:
            LeaseLost: it is another writer's by now.
        """
        with self._table() as table:
            writer, process, _ = table.get(str(shard), (self._writer, 0, 0.0))
            if writer != self._writer:
                raise LeaseLost(
                    f"shard {shard}: this writer was silent for more than {self._seconds:.0f} s, "
                    f"and process {process} has taken the shard over."
                )
            table[str(shard)] = self._entry(shard)

    def release(self, shard: int) -> None:
        """Give `shard` back; another writer's lease of it stays."""
        with self._table() as table:
            if table.get(str(shard), ("", 0, 0.0))[0] == self._writer:
                del table[str(shard)]

    @contextlib.contextmanager
    def alone(self) -> Iterator[int]:
        """No lease changes hands, and no other writer is in such a body, while this one runs. It is
        given the number of leases of other living writers."""
        with self._locked():
            yield sum(writer != self._writer for writer, _, _ in self._living().values())

    def _locked(self) -> IO[str]:
        """The lock file, held; never one that was removed with a store's other leftovers."""
        path = self._folder / "lock"
        with storage_errors(self._folder):
            while True:
                self._folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # removed in this very moment
                    lock = open(path, "a")  # noqa: SIM115 - closed by the caller, or below
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                        return lock
                    lock.close()

    def _entry(self, shard: int) -> tuple[str, int, float]:
        self._renewed[shard] = now = time.time()
        return self._writer, os.getpid(), now + self._seconds

    @contextlib.contextmanager
    def _table(self) -> Iterator[_Table]:
        """The living leases, to be changed while nobody else does."""
        with self._locked():
            table = self._living()
            before = dict(table)
            yield table
            if table != before:
                aside = self._folder / f".table.json.{self._writer}.tmp"
                aside.write_text(json.dumps(table))
                os.replace(aside, self._folder / _TABLE)  # no fsync: see _living

    def _living(self) -> _Table:
        try:
            table = json.loads((self._folder / _TABLE).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}  # lost with the machine's memory: at worst a shard is done twice
        now = time.time()
        return {
            shard: (writer, process, end)
            for shard, (writer, process, end) in table.items()
            if now < end and _lives(process)
        }


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True  # no such folder on this system
    return state != "Z"  # killed, and not waited for by its parent yet
