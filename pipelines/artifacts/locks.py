"""Advisory locks that die with their process.

`flock` is held by an open file, so the kernel releases it however the process ends, SIGKILL
included; a lock file without a process holds nothing. Lock files are never removed: a waiter may
have one open.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from core.errors import StorageError
from core.files import storage_errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The process that holds a lock."""

    pid: int
    host: str
    since: float
    """Seconds since the epoch."""

    def __str__(self) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {clock}"


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[Holder | None], None]) -> Iterator[None]:
    """Hold the lock at `path`, after waiting for another process that holds it.

    Args:
        path: the lock file, made where it is missing.
        waiting: called once before the wait, with the holder (None where it is not known).

    Raises:
        StorageError: the file cannot be made.
    """
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(_read(file))
            fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file)
        yield


@contextlib.contextmanager
def exclusive_or_none(path: Path) -> Iterator[bool]:
    """Hold the lock at `path` if it is free, and yield whether it is held.

    It is not signed: a full disk keeps nobody from freeing some of it.
    """
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock at `path` together with others that share it, on a read-only disk too."""
    with _opened(path, readable=True) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def holder(path: Path) -> Holder | None:
    """Return the holder of the exclusive lock at `path`; None where it is free."""
    if not path.is_file():
        return None
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(file)
        return None


@contextlib.contextmanager
def _opened(path: Path, *, readable: bool = False) -> Iterator[IO[str]]:
    """Open a lock file, made where it is missing.

    Args:
        path: the file.
        readable: be content with one that can be read, which a shared lock needs.
    """
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # no link: a lock is signed, and what a link leads to may be somebody's file
            file = open(path, "a+", opener=_not_through_links)  # noqa: SIM115 - closed below
    except StorageError:
        if not readable or not path.is_file():
            raise
        file = open(path)  # noqa: SIM115 - as above
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be created ({error.strerror or error}). "
            "Choose another folder with --root."
        ) from error
    with file:
        yield file


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _sign(file: IO[str]) -> None:
    own = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time())
    with storage_errors(Path(file.name)):
        file.truncate(0)
        # past the file's buffer, which closing would try to write once more
        os.write(file.fileno(), json.dumps(asdict(own)).encode())


def _read(file: IO[str]) -> Holder | None:
    file.seek(0)
    try:
        return Holder(**json.load(file))
    except (ValueError, TypeError):
        return None  # the holder has the lock but has not signed yet
