"""Tables as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

CellValue = str | float | bool | None
"""What a cell of a CSV file holds."""


def csv_bytes(rows: Sequence[Mapping[str, CellValue]]) -> bytes:
    """Write `rows` as CSV with their keys as its head."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Write a Markdown table; a bar or a line break in a cell does not end the cell.

    >>> print(markdown(["name", "n"], [["a|b", "1"]]))
    | name | n |
    | --- | --- |
    | a\|b | 1 |
    """
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
