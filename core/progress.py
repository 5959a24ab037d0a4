"""How a long piece of work tells how far it is; who listens is not its business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is done of a total, in the unit that `note` names (such as `tokens`)."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """A listener that does nothing."""
