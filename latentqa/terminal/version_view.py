"""Lines about two versions of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.text.wording import number, share, shortened

if TYPE_CHECKING:
    from pipelines.artifacts.locks import Holder
    from pipelines.versions.comparison import SampleRow, VersionComparison
    from pipelines.versions.journal import Firing

_LONGEST = 160
"""Most characters of a sample's text."""


def version_lines(found: VersionComparison) -> Iterator[str]:
    """Yield what differs between the rows of two versions, for a terminal."""
    yield f"rows: {found.kept} controls in both, {found.added} added, {found.removed} removed"
    for name, (left, right) in found.counts.items():
        yield f"  {name.replace('_', ' '):<22}{left:>8} → {right}"
    for flag, (before, now) in found.flags.items():
        yield f"  {'flag ' + flag:<34}{share(before):>6} → {share(now)}"
    if found.added or found.removed:
        yield "drift: distance of each distribution from 0 (the same) to 1, p adjusted (Holm)"
        for one in found.drift:
            p = "" if one.p is None else f"p = {one.p:.2g}"
            mark = " *" if one.stands_out else ""
            yield f"  {one.name:<22}{number(one.distance):>6}  {p:<12}{one.most}{mark}".rstrip()
    for sign, rows in (("+", found.added_rows), ("-", found.removed_rows)):
        for row in rows:
            yield from _sample_lines(sign, row)


def firing_line(firing: Firing, who: Holder | None) -> str:
    """Say how a firing of a schedule ended, or how far it is.

    Args:
        firing: its record.
        who: the process that is making a version now; None for none.
    """
    if firing.state == "begun" or who is not None:
        state = f"under way, {who}" if who else "was stopped; the next firing resumes it"
    elif firing.state == "failed":
        state = f"failed, and the next firing resumes it: {firing.error}"
    else:
        state = verdict(firing)
    return f"firing {firing.number} of {firing.started[:16].replace('T', ' ')} UTC: {state}"


def verdict(firing: Firing) -> str:
    """Say what became of the version of a firing that ended, and which one is `latest`."""
    if firing.state == "refused":
        latest = f"{firing.last_good} stays latest" if firing.last_good else "there is no latest"
        return f"{firing.version} is refused; {latest}."
    words = {"promoted": "promoted: it is now latest", "unchanged": "unchanged"}
    return f"{firing.version} is {words[firing.state]}."


def _sample_lines(sign: str, row: SampleRow) -> Iterator[str]:
    yield f"{sign} {row.kind}, {row.view}: {_short(row.control)}"
    if row.question is not None:
        yield f"    {_short(row.question)}  {_short(row.answer or '')}"


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), most=_LONGEST)
