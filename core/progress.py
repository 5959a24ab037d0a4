"""The interface through which a long piece of work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener for progress."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take note of `done` out of `total`, in the unit that `note` names (such as `tokens`)."""


def silent(done: int, total: int, note: str = "") -> None:
    """Ignore progress; the listener where nobody listens."""
