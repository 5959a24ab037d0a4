"""Tables as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
import itertools
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


def align_columns(text: str) -> str:
    r"""Pad the Markdown tables in `text`, so that they are columns on a terminal too.

    >>> print(align_columns("Two:\n| name | n |\n| --- | --- |\n| a | 10 |"))
    Two:
    | name | n   |
    | ---- | --- |
    | a    | 10  |
    """
    lines = text.split("\n")
    out: list[str] = []
    for is_table, run in itertools.groupby(lines, lambda line: line.startswith("| ")):
        block = list(run)
        out += _aligned(block) if is_table else block
    return "\n".join(out)


def _aligned(lines: Sequence[str]) -> list[str]:
    rows = [line[2:-2].split(" | ") for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    padded = [
        [
            "-" * width if cell == "---" else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        for row in rows
    ]
    return [f"| {' | '.join(row)} |" for row in padded]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
