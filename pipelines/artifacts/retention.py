"""Retention: which numbered versions of an experiment keep their names.

Only names are dropped here; `gc` removes what no name holds. A version that a tag of the user's or
`latest` holds is kept whatever its age, and so are the artifacts under every name that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.artifacts.refs import Name, Refs


def find_expired(refs: Refs, experiment: str, *, last: int, weekly: int) -> list[Name]:
    """Return the numbered versions of `experiment` that the rule does not keep, oldest first.

    Args:
        refs: the names of a root.
        experiment: name of the experiment.
        last: newest versions that are kept.
        weekly: weeks of which the newest version is kept, counted back from the newest version.
    """
    names = refs.names()
    versions = sorted(
        (n for n in names if n.name == experiment and n.version.isdigit()),
        key=lambda name: name.number or 0,
    )
    held = {n.artifacts for n in names if n.number is None}
    latest = {n.number for n in names if n.name == experiment and not n.version.isdigit()}
    kept = {name.number for name in versions[-last:]} | latest
    kept |= _newest_of_weeks(refs, versions, weekly)
    return [n for n in versions if n.number not in kept and n.artifacts not in held]


def _newest_of_weeks(refs: Refs, versions: Sequence[Name], weeks: int) -> set[int | None]:
    """Return the newest version of each of the last weeks that have any."""
    newest: dict[tuple[int, int], int | None] = {}
    for name in versions:
        year, week, _ = created(refs, name).isocalendar()
        newest[year, week] = name.number
    return {newest[week] for week in sorted(newest)[len(newest) - weeks :]} if weeks else set()


def created(refs: Refs, name: Name) -> datetime:
    """Return when a version was made: when the last of its artifacts was finished."""
    found = []
    for target in name.artifacts:
        kind, _, key = target.partition("/")
        if (artifact := refs.root.find(key, kind)) is not None:
            found.append(datetime.fromisoformat(str(artifact.record["created"])))
    return max(found, default=datetime.fromtimestamp(0, UTC))
