"""One number of several runs, held against the first of them, and which differences to mark.

Shapes: a run's values are [C, K], a row a control and a column a condition or metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluators.config import EvaluateConfig
from evaluators.stats.estimates import Statistic, difference, pooled, pools_p
from evaluators.stats.significance import holm, sign_flip
from pipelines.reports.run.files import Leaf, leaf_of

LEVEL = 0.05
SETTINGS = EvaluateConfig()
"""Bootstrap of a comparison: its samples, seed and least controls."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of one run; `difference`, `p` and `differs` are about the baseline."""

    leaf: Leaf | None
    difference: Leaf | None = None
    p: float | None = None
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One split and view: the questions that all runs share, and a cell a run by metric."""

    split: str
    view: str
    controls: int
    questions: int
    cells: dict[str, tuple[Cell, ...]]


def cell_of(base: list[np.ndarray], side: list[np.ndarray], statistic: Statistic) -> Cell:
    """The cell of one side, which may be the baseline itself; its p comes later."""
    samples, seed, least = SETTINGS.bootstrap, SETTINGS.seed, SETTINGS.min_controls
    leaf = leaf_of(pooled(side, statistic, samples=samples, seed=seed, least=least))
    if side is base:
        return Cell(leaf)
    away = difference(base, side, statistic, samples=samples, seed=seed, least=least)
    return Cell(leaf, leaf_of(away))


def p_of(
    base: list[np.ndarray], side: list[np.ndarray], away_C: np.ndarray, statistic: Statistic
) -> float | None:
    """p of the difference of two sides.

    Args:
        away_C: the difference at each control, runs averaged; its signs are flipped.
        statistic: the same difference as a statistic; where a side is a pool, chance among its runs
            is asked about too, and the larger p taken.
    """
    found = sign_flip(away_C, samples=SETTINGS.bootstrap, seed=SETTINGS.seed)
    among = pools_p(base, side, statistic, samples=SETTINGS.bootstrap, seed=SETTINGS.seed)
    return found if found is None or among is None else max(found, among)


def marked(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases with p adjusted for all of their differences, and those that differ marked."""
    asked = [
        (i, metric, k)
        for i, case in enumerate(cases)
        for metric, cells in case.cells.items()
        for k in range(1, len(cells))
    ]
    adjusted = holm([cases[i].cells[metric][k].p for i, metric, k in asked])
    found = dict(zip(asked, adjusted, strict=True))

    def mark(place: tuple[int, str, int], cell: Cell) -> Cell:
        if place not in found:
            return cell
        p, off = found[place], cell.difference is not None and cell.difference.off_zero
        return replace(cell, p=p, differs=off and p is not None and p < LEVEL)

    return tuple(
        replace(
            case,
            cells={
                metric: tuple(mark((i, metric, k), cell) for k, cell in enumerate(cells))
                for metric, cells in case.cells.items()
            },
        )
        for i, case in enumerate(cases)
    )
