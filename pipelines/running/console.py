"""What a person sees of a run: short lines on stderr, and progress bars on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from core.progress import Progress, silent

EVERY_S = 1.0
"""Least seconds between two writes of a progress file."""


class Console:
    """Lines on stderr.

    Args:
        log: is given every line too, such as the logger of an orchestrator.
    """

    def __init__(self, log: Callable[[str], None] | None = None) -> None:
        self._log = log

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)
        if self._log is not None:
            self._log(text)

    def step(self, name: str, key: str, state: str, seconds: float | None = None) -> None:
        """Print a step's line: its name, key and state, and the seconds it took."""
        spent = "" if seconds is None else f"{seconds:8.1f} s"
        self.say(f"{name:<14} {key[:16]}  {state:<8}{spent}".rstrip())

    @contextlib.contextmanager
    def bar(self, name: str) -> Iterator[Progress]:
        """Yield a progress listener that draws a bar on a terminal, and does nothing elsewhere."""
        if not sys.stderr.isatty():
            yield silent
            return
        from rich import console, progress

        with progress.Progress(
            progress.TextColumn(f"  {name}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[note]}"),
            progress.TimeRemainingColumn(),
            console=console.Console(stderr=True),
            transient=True,
        ) as bars:
            task = bars.add_task(name, total=None, note="")

            def listen(done: int, total: int, note: str = "") -> None:
                bars.update(task, completed=done, total=total, note=note)

            yield listen


class ProgressFile:
    """A progress listener that writes a file, which `latentqa status` reads.

    Args:
        path: the JSON file, replaced at most once a second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.first: int | None = None
        self._written = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Write `done` of `total`, in the unit that `note` names."""
        if self.first is None:
            self.first = done  # an earlier attempt's work says nothing about this one's speed
        now = time.time()
        if now - self._written < EVERY_S and done < total:
            return
        self._written = now
        value = {
            "done": done,
            "total": total,
            "note": note,
            "first": self.first,
            "started": self.started,
            "updated": now,
        }
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(value), encoding="utf-8")
        os.replace(aside, self.path)


def combine(*listeners: Progress) -> Progress:
    """Return one progress listener that calls all of `listeners`."""

    def listen(done: int, total: int, note: str = "") -> None:
        for listener in listeners:
            listener(done, total, note)

    return listen
