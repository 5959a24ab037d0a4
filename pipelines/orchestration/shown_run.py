"""State of a run on a Prefect server; the run goes on where the server is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from core.errors import LatentQAError
from core.text.redact import redact
from pipelines.orchestration.sender import Sender
from pipelines.running.prefect_settings import configured_api_url
from pipelines.running.results import RunResult

T = TypeVar("T")


@dataclass
class ShownRun:
    """Result or error of the run in this process, kept apart from the server's state."""

    result: RunResult | None = None
    error: Exception | None = None
    """Of our own code; an error of the server's client ends no run."""
    server_lost: bool = False
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        """Keep what the sender's calls raise from the run."""
        self.sender = Sender(self.guarded)

    def guarded(self, call: Callable[[], T]) -> T | None:
        """Call the server; once it is lost, that is said once, and it is no longer called."""
        if self.server_lost:
            return None
        try:
            return call()
        except Exception as error:  # whatever the client or the server raises: a run needs neither
            self.say_lost(error)
            return None

    def say_lost(self, error: Exception) -> None:
        """Print once that the server is lost."""
        if not self.server_lost:
            self.server_lost = True
            print(
                f"Prefect at {redact(configured_api_url() or '')} cannot be reached any "
                f"more ({type(error).__name__}); the run continues but is no longer shown "
                "there.",
                file=sys.stderr,
                flush=True,
            )


_RUN: ContextVar[ShownRun] = ContextVar("run")


def current_run() -> ShownRun:
    """Return the state of the run; a new one where the server itself has started it."""
    try:
        return _RUN.get()
    except LookupError:
        state = ShownRun()
        _RUN.set(state)
        return state


def guarded(call: Callable[[], T]) -> T | None:
    """Call Prefect's API, which may be lost; None where it is."""
    return current_run().guarded(call)


def with_fallback(shown: Callable[[], T], alone: Callable[[], T]) -> T:
    """Call `shown`, which uses the server; where that is lost on the way, call `alone`.

    Raises:
        LatentQAError: as the calls do.
    """
    state = ShownRun()
    token = _RUN.set(state)
    try:
        return shown()
    except LatentQAError:
        raise
    except Exception as error:
        if state.error is not None:
            raise state.error from None
        state.say_lost(error)
        return alone()
    finally:
        _RUN.reset(token)
