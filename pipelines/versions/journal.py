"""The journal of a schedule: one record a firing, `ROOT/schedules/NAME/00001.json`.

A firing has a number, which alone says what is new of its version: identities know no clock. The
record is written when a firing begins and replaced when it ends; one that was killed in between has
no end, and the next firing takes its number up again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from core.documents.strict_json import load_json
from core.errors import DamagedError
from core.files import read_file, write_json
from pipelines.artifacts.root import ArtifactRoot

FOLDER = "schedules"

FiringState = Literal["begun", "promoted", "refused", "unchanged", "failed"]
"""`unchanged`: the version is the last good one; `failed`: an error ended it."""
FINAL = ("promoted", "refused", "unchanged")
"""States after which the next firing has a number of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Firing:
    """One firing of a schedule."""

    number: int
    state: FiringState
    due: str | None
    """When the clock wanted it, ISO 8601; None where a person started it."""
    started: str
    """When its last attempt began."""
    finished: str | None = None
    version: str | None = None
    """The numbered version that it made: `NAME:3`."""
    last_good: str | None = None
    """The version that it was compared with."""
    checks: tuple[dict[str, Any], ...] = ()
    """What the gate found: {name, value, limit, passed, detail}."""
    error: str | None = None
    """Why it failed, in one line."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {**asdict(self), "checks": list(self.checks)}


class Journal:
    """The firings of one experiment's schedule.

    Args:
        root: the artifact root.
        experiment: name of the experiment.
    """

    def __init__(self, root: ArtifactRoot, experiment: str) -> None:
        self.folder = root.path / FOLDER / experiment
        self.lock = root.path / "locks" / f"schedule-{experiment}.lock"
        """Held by the firing that is under way."""

    def firings(self) -> list[Firing]:
        """Return all firings, oldest first.

        Raises:
            DamagedError: a record cannot be read.
        """
        return [_read(path) for path in sorted(self.folder.glob("[0-9]*.json"))]

    def begin(self, due: datetime | None) -> Firing:
        """Begin the next firing, or take up the last one where it has no end."""
        known = self.firings()
        last = known[-1] if known else None
        number = 1 if last is None else last.number + (last.state in FINAL)
        firing = Firing(
            number=number,
            state="begun",
            due=None if due is None else due.isoformat(),
            started=now(),
        )
        self.write(firing)
        return firing

    def end(self, firing: Firing, state: FiringState, **changes: Any) -> Firing:
        """Write the end of a firing."""
        done = replace(firing, state=state, finished=now(), **changes)
        self.write(done)
        return done

    def write(self, firing: Firing) -> None:
        """Write the record of a firing, atomically."""
        write_json(self.path(firing), firing.to_json())

    def path(self, firing: Firing) -> Path:
        """Return where the record of a firing is."""
        return self.folder / f"{firing.number:05}.json"

    def page(self, firing: Firing) -> Path:
        """Return where the page of a firing is."""
        return self.folder / f"{firing.number:05}.html"

    def caught_up_by(self, due: datetime | None) -> Firing | None:
        """Return the firing that began after this one was due, and so has caught it up.

        One that began later than now did so before the clock was set back, and does not count.
        """
        if due is None:
            return None
        done = [firing for firing in self.firings() if firing.state in FINAL]
        present = datetime.now(UTC)
        later = (one for one in done if due <= datetime.fromisoformat(one.started) <= present)
        return next(later, None)


def now() -> str:
    """Return the time, ISO 8601 with its zone."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read(path: Path) -> Firing:
    try:
        value = load_json(read_file(path))
        return Firing(**{**value, "checks": tuple(value["checks"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path}: not a valid record of a scheduled run ({error}). Remove the file and "
            "run again.",
            path,
        ) from error
