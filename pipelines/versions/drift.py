"""Drift between two versions of a data set: distances of distributions, with tests.

A distribution of names (kinds, categories, question types) is compared by total variation distance
and a χ² test of homogeneity; one of lengths by the largest distance of the cumulative distributions
and the Kolmogorov–Smirnov test. The p-values are adjusted for all distributions (Holm): of large
data sets every difference is no chance, so that a distance alone says how much there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from core.records.tables import Conversation, Question
from core.records.tool_use import message_text
from evaluators.stats.significance import adjust_holm

LEVEL = 0.05
"""Adjusted p under which a distance is none of chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """One distribution in two versions."""

    name: str
    """What is distributed: `kind`, `category`, `question type`, `length of answers`, ..."""
    distance: float
    """Between 0, the same, and 1, nothing in common."""
    p: float | None
    """Chance of such a distance where both are drawn alike, adjusted; None where it cannot be
    tested."""
    before: int
    """Number of values before."""
    now: int
    """Number of values now."""
    most: str
    """The value whose share has changed most, with both shares; for lengths both medians."""

    @property
    def stands_out(self) -> bool:
        """Whether the distance is significant."""
        return self.p is not None and self.p < LEVEL


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a version."""

    conversations: Sequence[Conversation]
    questions: Sequence[Question]


def measure_drift(before: Rows, now: Rows) -> list[Drift]:
    """Measure how far each distribution of `now` is from that of `before`.

    Args:
        before: the earlier rows.
        now: the later ones.

    Returns:
        One a distribution that both have values of; the furthest first.
    """
    names = [
        _of_names(name, list(values(before)), list(values(now))) for name, values in _NAMES.items()
    ]
    lengths = [
        _of_lengths(name, list(values(before)), list(values(now)))
        for name, values in _LENGTHS.items()
    ]
    found = [one for one in (*names, *lengths) if one is not None]
    adjusted = adjust_holm([one.p for one in found])
    drifts = [replace(one, p=p) for one, p in zip(found, adjusted, strict=True)]
    return sorted(drifts, key=lambda one: -one.distance)


def _of_names(name: str, before: Sequence[str], now: Sequence[str]) -> Drift | None:
    if not before or not now:
        return None
    counts = Counter(before), Counter(now)
    every = sorted({*counts[0], *counts[1]})
    table = np.array([[count[one] for one in every] for count in counts], float)
    shares = table / table.sum(1, keepdims=True)
    away = shares[1] - shares[0]
    most = int(np.abs(away).argmax())
    p = float(stats.chi2_contingency(table).pvalue) if len(every) > 1 else 1.0
    return Drift(
        name=name,
        distance=float(np.abs(away).sum() / 2),
        p=p,
        before=len(before),
        now=len(now),
        most=f"{every[most]}: {shares[0, most]:.0%} → {shares[1, most]:.0%}".replace("%", " %"),
    )


def _of_lengths(name: str, before: Sequence[int], now: Sequence[int]) -> Drift | None:
    if not before or not now:
        return None
    found = stats.ks_2samp(before, now)
    medians = f"median {np.median(before):g} → {np.median(now):g} characters"
    return Drift(
        name=name,
        distance=float(found.statistic),
        p=float(found.pvalue),
        before=len(before),
        now=len(now),
        most=medians,
    )


def _controls(rows: Rows) -> list[Conversation]:
    """Return one conversation of each control."""
    return list({row.control_id: row for row in rows.conversations}.values())


def _segment(rows: Rows, segment: str) -> Iterable[int]:
    for row in rows.conversations:
        own = [message_text(m) for m in row.messages if m.segment == segment]
        if own:
            yield sum(map(len, own))


_NAMES: Mapping[str, Callable[[Rows], Iterable[str]]] = {
    "kind": lambda rows: (row.kind for row in _controls(rows)),
    "category": lambda rows: (f"{row.kind}/{row.category}" for row in _controls(rows)),
    "view": lambda rows: (row.view for row in rows.conversations),
    "question type": lambda rows: (q.type for q in rows.questions if q.type is not None),
}
_LENGTHS: Mapping[str, Callable[[Rows], Iterable[int]]] = {
    "length of controls": lambda rows: (len(row.control) for row in _controls(rows)),
    "length of stimuli": lambda rows: _segment(rows, "stimulus"),
    "length of completions": lambda rows: _segment(rows, "completion"),
    "length of questions": lambda rows: (len(q.question) for q in rows.questions),
    "length of answers": lambda rows: (len(q.answer) for q in rows.questions),
}
