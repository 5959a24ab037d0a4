"""SIGKILL at one chosen change of the file system, counted by Python's audit events."""

from __future__ import annotations

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
    """

    def __init__(self, folder: Path, die_at: int = 0) -> None:
        self.folder = os.path.abspath(folder)
        self.die_at = die_at
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
