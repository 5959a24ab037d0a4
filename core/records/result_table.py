"""A table of results, which a page, a terminal and a Markdown file show alike."""

from __future__ import annotations

from dataclasses import dataclass

from core.records.estimate import Estimate
from core.text.text_tables import markdown
from core.text.wording import ABSENT, count

Cell = str | int | Estimate | None
"""Text, a count, an estimate with its interval, or None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Names, then what was measured of them.

    Attributes:
        head: name of each column.
        rows: a cell a column.
        names: leading columns that say what a row is of; numbers come after them.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    names: int = 1

    def texts(self) -> list[list[str]]:
        """Format every cell, as on a terminal."""
        return [[_text(cell) for cell in row] for row in self.rows]

    def to_markdown(self) -> str:
        """Write the table as Markdown."""
        return markdown(self.head, self.texts())


def _text(cell: Cell) -> str:
    if isinstance(cell, int):
        return count(cell)
    return ABSENT if cell is None else str(cell)
