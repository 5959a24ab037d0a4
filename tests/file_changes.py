"""SIGKILL, or a full disk, at one chosen change of the file system, by Python's audit events."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = frozenset(
    {
        *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
        *("os.utime", "shutil.copyfile"),
    }
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Changes:
    """Counts what this process changes below a folder, for as long as it lives.

    Args:
        folder: other changes do not count.
        die_at: number of the change, from 1, before which the process kills itself; 0 for never.
        full_from: number of the change from which on nothing new can be written; 0 for never.
    """

    def __init__(self, folder: Path, die_at: int = 0, full_from: int = 0) -> None:
        self.folder = os.path.abspath(folder)
        self.die_at, self.full_from = die_at, full_from
        self.count = 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & _WRITES:
                return
        elif event in EVENTS:
            path = args[0]
        else:
            return
        if not self._is_below(path, args):
            return
        self.count += 1
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < self.full_from <= self.count and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _is_below(self, path: Any, args: tuple[Any, ...]) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        text = os.fsdecode(path)
        # a removal of a whole tree names its files relative to an open folder
        relative = not os.path.isabs(text) and isinstance(args[-1], int) and args[-1] >= 0
        return relative or os.path.abspath(text).startswith(self.folder)


def count_changes(folder: Path, run: Callable[[], object]) -> int:
    """Count the changes below `folder` that `run` makes, in a process of its own."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        changes = Changes(folder)
        try:
            run()
            os.write(write, str(changes.count).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        count = int(pipe.read())
    os.waitpid(pid, 0)
    return count


def run_and_die(folder: Path, die_at: int, run: Callable[[], object]) -> bool:
    """Run in a process that kills itself before its change number `die_at`; whether it did."""
    if (pid := os.fork()) == 0:
        Changes(folder, die_at)
        try:
            run()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def run_on_full_disk(folder: Path, full_from: int, run: Callable[[], object]) -> str:
    """Run in a process that can write nothing new from a change on; return the error's line."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        Changes(folder, full_from=full_from)
        try:
            run()
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said
