"""Files of rows as people write them: tables with a head, JSON lists, JSON Lines."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.documents.strict_json import load_json
from core.errors import DataError, first_line
from core.text.byte_order import as_utf8

SUFFIXES = (".tsv", ".csv", ".json", ".jsonl")
_DELIMITERS = ("\t", ";", ",")
_TOLD_DELIMITER = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""A first line in which spreadsheets say what divides cells."""

Row = Mapping[Any, Any]


def read_rows(path: Path, columns: Sequence[str]) -> Sequence[Row]:
    """Read the rows of a table, a JSON list, or JSON Lines.

    A JSON object holds the rows in its one list of objects, or columns as pandas writes them. A
    table's cells are divided as its head is, whatever its ending.

    Args:
        path: of the file; its ending says which it is.
        columns: names of which every row has one, in lower case.

    Raises:
        DataError: the file cannot be read, or has no rows.
    """
    suffix = path.suffix.lower()
    try:
        text = as_utf8(path.read_bytes()).decode()
        if suffix in (".tsv", ".csv"):
            return _table_rows(text, _delimiter(text, "\t" if suffix == ".tsv" else ","))
        rows = _json_rows(text, columns)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a JSON list of objects with subject and object.")
    return rows


def _json_rows(text: str, columns: Sequence[str]) -> Any:
    """Parse JSON, or JSON Lines; find the rows in an object."""
    try:
        value = load_json(text)
    except ValueError:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not is_json(lines[0]):
            raise
        return [load_json(line) for line in lines]
    if not isinstance(value, dict):
        return value
    own = next((value[name] for name in value if str(name).strip().casefold() in columns), None)
    if isinstance(own, dict):
        columns_by_row = {k: one for k, one in value.items() if isinstance(one, dict)}
        return [{k: one.get(row) for k, one in columns_by_row.items()} for row in own]
    if isinstance(own, list):
        lists_by_name = {k: one for k, one in value.items() if isinstance(one, list)}
        found = zip(*lists_by_name.values(), strict=True)
        return [dict(zip(lists_by_name, row, strict=True)) for row in found]
    lists = [one for one in value.values() if isinstance(one, list) and _are_rows(one)]
    return [value] if own is not None else lists[0] if len(lists) == 1 else value


def _are_rows(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(one, dict) for one in values)


def is_json(text: str | bytes) -> bool:
    """Tell whether `text` is JSON."""
    try:
        load_json(text)
    except ValueError:
        return False
    return True


def _delimiter(text: str, usual: str) -> str:
    """Return what divides the head of a table: what its ending says, unless the head has none."""
    head = text.lstrip("\r\n").split("\n", 1)[0]
    return usual if usual in head else max(_DELIMITERS, key=head.count)


def _table_rows(text: str, delimiter: str) -> list[dict[Any, Any]]:
    """Read a table; its quotes hold cells together, or are part of names where rows fit only so."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole conversation
    if told := _TOLD_DELIMITER.match(text):
        text, delimiter = text[told.end() :], told[1]
    rows, error = None, None
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        lines = io.StringIO(text, newline="")
        try:
            reader = csv.DictReader(lines, delimiter=delimiter, strict=True, quoting=quoting)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            found = list(reader)
        except csv.Error as caught:
            error = caught
            continue
        twice = Counter(filter(None, reader.fieldnames)).most_common(1)
        if twice and twice[0][1] > 1:
            raise ValueError(f"the head names {twice[0][0]!r} twice")
        if not any(None in row or None in row.values() for row in found):
            return found
        rows = found if rows is None and error is None else rows
    if rows is None:
        raise error or csv.Error("no row")
    return rows
