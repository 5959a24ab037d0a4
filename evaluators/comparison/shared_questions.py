"""What several evaluations measured of the questions, or items, that all of them were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluators.measure.result_files import ITEMS_FILE, LOSSES_FILE, read_rows
from evaluators.stats.estimates import average_by_control

Key = tuple[str, ...]
"""Control, example and question, and of an item its options."""
Slice = tuple[str, str]
"""Split and view."""
Values = Mapping[Key, Mapping[str, float]]
"""A number of each question by condition."""


def read_losses(folder: Path) -> dict[Slice, Values]:
    """Read the answer losses of an evaluation, in nats per token."""
    return _read(folder / LOSSES_FILE, "loss")


def read_items(folder: Path) -> dict[Slice, Values]:
    """Read of each item of identification whether gold was found; empty where there are none."""
    return _read(folder / ITEMS_FILE, "correct")


def _read(path: Path, column: str) -> dict[Slice, Values]:
    found: dict[Slice, dict[Key, dict[str, float]]] = {}
    for row in read_rows(path if path.is_file() else None):
        key = (row["control_id"], row["example_id"], row["question"], *row.get("options", ()))
        own = found.setdefault((row["split"], row["view"]), {})
        own.setdefault(key, {})[row["condition"]] = row[column]
    return dict(found)


def shared_keys(tables: Sequence[Values]) -> list[Key]:
    """List the questions that stand in every table, in order."""
    return sorted(set(tables[0]).intersection(*tables[1:]))


def shared_conditions(tables: Sequence[Values], keys: Sequence[Key]) -> list[str]:
    """List the conditions under which every table has its questions, in order."""
    return sorted(set(tables[0][keys[0]]).intersection(*(table[keys[0]] for table in tables)))


def control_means(table: Values, keys: Sequence[Key], conditions: Sequence[str]) -> np.ndarray:
    """Average the numbers [C, K] of each control under each condition; controls are sorted."""
    controls = np.array([key[0] for key in keys])
    columns = [
        average_by_control(np.array([table[key][name] for key in keys]), controls)[1]
        for name in conditions
    ]
    return np.stack(columns, 1)
