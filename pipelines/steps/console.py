"""What a person sees of a run: short lines on stderr, and bars where it is a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from core.progress import Progress, silent

EVERY = 1.0
"""Least seconds between two notes of progress on disk."""


class Console:
    """Lines on stderr.

    Args:
        bars: whether to draw progress bars; None where stderr is a terminal.
    """

    def __init__(self, *, bars: bool | None = None) -> None:
        self.bars = sys.stderr.isatty() if bars is None else bars

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def step(self, name: str, key: str, state: str, seconds: float | None = None) -> None:
        """Print a step's line: name, key, what of it, seconds."""
        spent = "" if seconds is None else f"{seconds:8.1f} s"
        self.say(f"{name:<14} {key[:16]}  {state:<8}{spent}".rstrip())

    @contextlib.contextmanager
    def bar(self, name: str) -> Iterator[Progress]:
        """A listener that draws a bar on a terminal, and does nothing elsewhere."""
        if not self.bars:
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
    """A listener that keeps how far a step is, for `latentqa status`.

    Args:
        path: the JSON file, replaced at most once a second.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.first: int | None = None
        self._written = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if self.first is None:
            self.first = done  # what an earlier attempt did says nothing about this one's speed
        now = time.time()
        if now - self._written < EVERY and done < total:
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


def all_of(*listeners: Progress) -> Progress:
    """One listener that tells `listeners`."""

    def listen(done: int, total: int, note: str = "") -> None:
        for listener in listeners:
            listener(done, total, note)

    return listen
