"""Written answers and identification of several runs, on what all of them were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.tables import SPLITS, VIEWS
from evaluators.answers.answer_quality import written
from evaluators.answers.metrics import METRICS
from evaluators.measure.panel import mean
from evaluators.measure.result_files import ANSWERS_FILE, ITEMS_FILE
from evaluators.stats.estimates import over_controls
from pipelines.reports.compare.cells import Case, Cell, cell_of, p_of
from pipelines.reports.run.data import ordered
from pipelines.reports.run.files import table_rows

IDENTIFIED = "identified"
"""Share of the items of identification in which gold was found, given the row's own activations."""

Place = tuple[str, str, str]
"""Split, view and metric."""
Scores = dict[tuple[Any, ...], float]
"""What each answer or item got; a key starts with the control."""


def answer_cases(sides: Sequence[Sequence[Path]]) -> list[Case]:
    """Cases of written answers and identification, given the rows' own activations.

    Args:
        sides: of each run the folders of its pooled evaluations.

    Returns:
        A case for each split and view of which all runs have an answer to the same question, or an
        item with the same options; differences are not marked yet.
    """
    found = [[_scores(folder) for folder in side] for side in sides]
    every = [one for side in found for one in side]
    shared = set(every[0]).intersection(*every[1:])
    out = []
    for split in ordered((s for s, _, _ in shared), SPLITS):
        for view in ordered((v for s, v, _ in shared if s == split), VIEWS):
            controls, questions, cells = 0, 0, {}
            for metric in (IDENTIFIED, *(one.name for one in METRICS)):
                place = (split, view, metric)
                if place not in shared:
                    continue
                scores = [[one[place] for one in side] for side in found]
                n, m, line = _line(scores)
                if n:
                    cells[metric] = line
                    controls, questions = max(controls, n), max(questions, m)
            if cells:
                out.append(Case(split, view, controls, questions, cells))
    return out


def _scores(folder: Path) -> dict[Place, Scores]:
    """Scores of one evaluation; a file that it has not gives none."""
    out: dict[Place, Scores] = {}
    answers, items = (
        table_rows(path if (path := folder / name).is_file() else None)
        for name in (ANSWERS_FILE, ITEMS_FILE)
    )
    for row in answers:
        own, _ = written(row)
        key = (row["control_id"], row["example_id"], row["question"])
        for metric in METRICS:
            if metric.applies(own):
                place = (row["split"], row["view"], metric.name)
                out.setdefault(place, {})[key] = metric.score(own)
    for row in items:
        if row["condition"] == "right":
            key = (row["control_id"], row["example_id"], row["question"], *row["options"])
            out.setdefault((row["split"], row["view"], IDENTIFIED), {})[key] = row["correct"]
    return out


def _line(sides: Sequence[Sequence[Mapping[tuple[Any, ...], float]]]) -> tuple[int, int, Any]:
    """Controls and questions that all share, and a cell a run."""
    every = [one for side in sides for one in side]
    keys = sorted(set(every[0]).intersection(*every[1:]))
    of = np.array([key[0] for key in keys])
    values = [
        [over_controls(np.array([one[key] for key in keys]), of)[1][:, None] for one in side]
        for side in sides
    ]
    controls = len(values[0][0])
    return controls, len(keys), tuple(_cell(values[0], side) for side in values) if keys else ()


def _cell(base: list[np.ndarray], side: list[np.ndarray]) -> Cell:
    statistic = mean(["score"], "score")
    cell = cell_of(base, side, statistic)
    if side is base:
        return cell
    away_C = np.mean(side, 0)[:, 0] - np.mean(base, 0)[:, 0]
    return replace(cell, p=p_of(base, side, away_C, statistic))
