"""The page on which rows of a data set are browsed and filtered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.records.tool_use import call_texts
from pipelines.reports.pages.render import render_page

FILTERS = ("kind", "view", "split", "category", "type", "flag")
"""What rows are filtered by, each with a list of the values that there are."""


def rows_page(records: Sequence[Mapping[str, Any]], *, title: str, total: int) -> str:
    """Render rows as a page that loads nothing from elsewhere and escapes every text.

    Args:
        records: the rows shown (generators.exchange.exporting.to_records).
        title: what they are.
        total: rows that fit, of which these are the first.
    """
    values = [{name: filter_values(record, name) for name in FILTERS} for record in records]
    return render_page(
        "rows/rows.html",
        title=title,
        total=total,
        call_texts=call_texts,
        rows=list(zip(records, values, strict=True)),
        choices=[(name, _distinct(own[name] for own in values)) for name in FILTERS],
    )


def filter_values(record: Mapping[str, Any], name: str) -> list[str]:
    """List the values of a row that one filter looks at.

    Args:
        record: the row.
        name: one of `FILTERS`, or another field of the row; `flag` takes the row's flags and those
            of its questions, `type` the types of its questions.
    """
    if name == "flag":
        return [*record["flags"], *(flag for q in record["questions"] for flag in q["flags"])]
    if name == "type":
        return [q["type"] for q in record["questions"] if q["type"] is not None]
    return [record[name]]


def _distinct(values: Iterable[Sequence[str]]) -> list[str]:
    return sorted({value for own in values for value in own})
