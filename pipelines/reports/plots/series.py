"""A named set of points, as curves and scatter plots take it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """A named set of (x, y) points; `weights`, where given, are shares that a dot's area shows."""

    label: str
    x: tuple[int, ...] | tuple[float, ...]
    y: tuple[float, ...]
    colour: str = "own"
    weights: tuple[float, ...] = ()
