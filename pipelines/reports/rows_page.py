"""Rows as one self-contained HTML page that filters them in the browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.tool_use import calls_said

_HERE = Path(__file__).parent
FILTERS = ("kind", "view", "split", "category", "type", "flag")
"""What rows are filtered by, each with a list of the values that there are."""


def rows_page(records: Sequence[Mapping[str, Any]], *, title: str, total: int) -> str:
    """The page: nothing is loaded from elsewhere, and every text is escaped.

    Args:
        records: the rows shown (generators.exchange.exporting.to_records).
        title: what they are.
        total: rows that fit, of which these are the first.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = [{name: values_of(record, name) for name in FILTERS} for record in records]
    return environment.get_template("rows.html").render(
        css=Markup((_HERE / "report.css").read_text()),
        title=title,
        total=total,
        calls_said=calls_said,
        rows=list(zip(records, values, strict=True)),
        filters=[(name, _there(own[name] for own in values)) for name in FILTERS],
    )


def values_of(record: Mapping[str, Any], name: str) -> list[str]:
    """What of a row one filter looks at: its own flags and its questions', their types, a field."""
    if name == "flag":
        return record["flags"] + [flag for q in record["questions"] for flag in q["flags"]]
    if name == "type":
        return [q["type"] for q in record["questions"] if q["type"] is not None]
    return [record[name]]


def _there(values: Iterable[Sequence[str]]) -> list[str]:
    return sorted({value for own in values for value in own})
