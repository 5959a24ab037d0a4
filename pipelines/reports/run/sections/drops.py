"""Rows that the steps of a run dropped: how many of how many, under which rule, with an example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.records.table_files import DROPPED_FILE, read_dropped
from pipelines.artifacts.artifact import Artifact
from pipelines.reports.run.inputs import artifact_file

_KEPT = {"dump": "sequences", "train": "rows", "quality": "questions"}
"""Step to the count of the rows that it kept, where it drops rows of that kind."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Rows that one step dropped under one rule, with one of them as the example."""

    step: str
    reason: str
    count: int
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class DroppedRows:
    """How many rows a step dropped.

    Attributes:
        step: name of the step.
        count: dropped rows.
        total: rows that it was given; None where it does not say.
        reasons: rows by rule, the most frequent first.
    """

    step: str
    count: int
    total: int | None
    reasons: tuple[tuple[str, int], ...]


def read_drops(steps: Sequence[Artifact]) -> tuple[Drop, ...]:
    """Read dropped rows by step and rule, from the lists that steps keep, else from their counts.

    Raises:
        DataError: a list is no such table.
    """
    drops: list[Drop] = []
    for step in steps:
        path = artifact_file(step, DROPPED_FILE)
        if path is None:
            counted = step.record["counts"].get("dropped") or {}
            drops += [Drop(step.kind, reason, n, "", "") for reason, n in counted.items() if n]
            continue
        rows = read_dropped(path)
        found = Counter(row.reason for row in rows)
        first = {row.reason: row for row in reversed(rows)}
        drops += [
            Drop(
                step.kind, reason, n, first[reason].where, first[reason].detail or first[reason].raw
            )
            for reason, n in found.items()
        ]
    order = [step.kind for step in steps]
    return tuple(sorted(drops, key=lambda drop: (order.index(drop.step), -drop.count, drop.reason)))


def dropped_by_step(steps: Sequence[Artifact], drops: Sequence[Drop]) -> list[DroppedRows]:
    """Sum up the dropped rows of each step that dropped any."""
    out = []
    for step in steps:
        own = [drop for drop in drops if drop.step == step.kind]
        lost = sum(drop.count for drop in own)
        if own:
            kept = step.record["counts"].get(_KEPT.get(step.kind, ""))
            total = None if kept is None else lost + int(kept)
            reasons = tuple((drop.reason, drop.count) for drop in own)
            out.append(DroppedRows(step.kind, lost, total, reasons))
    return out
