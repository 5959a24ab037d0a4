"""A named set of points, as curves and scatter plots take it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """A named set of (x, y) points."""

    label: str
    x: tuple[int, ...] | tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "own"
