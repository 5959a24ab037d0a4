"""Entries of own conversations: JSON, Parquet and tables, data sets saved or on the hub."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from core.documents.strict_json import load_json
from core.errors import DataError
from core.files import sha256_file
from core.records.tables import Split
from core.text.byte_order import as_utf8
from generators.exchange.config import RowsConfig
from generators.kinds.config import TextSource
from generators.kinds.row_files import is_json, read_rows
from generators.kinds.sources import (
    is_saved_dataset,
    list_files,
    load_saved,
    read_parquet,
    readable_name,
    resolve_texts,
    stream_from_hub,
)
from generators.splits import split_named

_TABLES = (".csv", ".tsv")
ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", *_TABLES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a file or data set, as JSON text.

    Attributes:
        split: what its file or part of a data set is named for.
        fault: why it is no row, where that shows before its text is read.
    """

    file: str
    number: int
    text: bytes
    fault: str = ""
    split: Split | None = None


def conversation_files(path: Path) -> dict[str, Path]:
    """List the files at `path`, a file or a folder, by name.

    Raises:
        DataError: there is none.
    """
    if path.is_file() and path.suffix.lower() in ENDINGS:
        return {readable_name(path.name): path}
    if is_saved_dataset(path):
        found = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        found = list_files(path, ENDINGS)
        # beside rows by the line, a .json file describes them, as dataset_infos.json does
        found = [file for file in found if file.suffix.lower() != ".json"] or found
    if not found:
        what = "no such file or folder"
        if path.exists():
            what = "no regular file" if not path.is_file() else f"ends in {path.suffix!r}"
            what = "holds no conversations" if path.is_dir() else what
        raise DataError(
            f"{path}: {what}; expected a file that ends in {', '.join(ENDINGS)}, a folder of them, "
            "a folder that `datasets` saved, or the id of a dataset on the hub."
        )
    return {readable_name(file.relative_to(path).as_posix()): file for file in found}


def own_digests(path: Path, rows: RowsConfig | None = None) -> dict[str, str]:
    """Return the sha256 of each file at `path`, by name, or the commit of a dataset on the hub.

    Raises:
        DataError: there is none.
    """
    if _is_hub_id(path):
        return {
            str(path): resolve_texts(_hub_source(path, rows or RowsConfig())).identity["commit"]
        }
    return {name: sha256_file(file) for name, file in conversation_files(path).items()}


def read_entries(path: Path, config: RowsConfig) -> Iterator[Entry]:
    """Yield the entries of all files at `path`, or of a dataset on the hub.

    Raises:
        DataError: there is no file, or one cannot be read.
    """
    if _is_hub_id(path):
        source = _hub_source(path, config)
        commit = resolve_texts(source).identity["commit"]
        yield from _values(str(path), stream_from_hub(source, commit))
        return
    if is_saved_dataset(path):
        saved = load_saved(path, config.dataset_split)
        splits = _named_splits(name or "" for name in saved)
        for part, rows in saved.items():
            yield from _values(part or path.name, rows, splits.get(part or ""))
        return
    files = conversation_files(path)
    splits = _named_splits(files)
    for name, file in files.items():
        suffix = file.suffix.lower()
        if suffix == ".parquet":
            entries = _values(name, read_parquet(file))
        elif suffix in _TABLES:
            entries = _table_rows(name, file)
        else:
            entries = _text_entries(name, file, config)
        for entry in entries:
            yield entry if entry.split else replace(entry, split=splits.get(name))


def _named_splits(names: Iterable[str]) -> dict[str, Split | None]:
    """Return the split that each of the parts of a data set is named for.

    Returns:
        nothing where `train` and another are not among them: that leaves nothing to divide.
    """
    splits = {name: split_named(PurePath(name).name) for name in names}
    found = {*splits.values()} - {None}
    return splits if "train" in found and len(found) > 1 else {}


def _values(name: str, rows: Iterable[Any], split: Split | None = None) -> Iterator[Entry]:
    """Yield rows that are values already, each with its number."""
    for number, value in enumerate(rows, 1):
        text = json.dumps(value, default=_as_text).encode()
        yield Entry(file=name, number=number, text=text, split=split)


def _table_rows(name: str, file: Path) -> Iterator[Entry]:
    """Yield the rows of a table, each with its number; one of other cells than the head is none."""
    for number, row in enumerate(read_rows(file, ()), 1):
        fault = ""
        if rest := row.get(None):
            cells = len(row) - 1 + len(rest)
            fault = f"{cells} cells, expected the {len(row) - 1} of the head; quote what has commas"
        text = json.dumps({n: cell for n, cell in row.items() if n is not None}).encode()
        yield Entry(file=name, number=number, text=text, fault=fault)


def _text_entries(name: str, file: Path, config: RowsConfig) -> Iterator[Entry]:
    """Yield the lines of a text file that are not blank, or the values of a JSON file."""
    try:
        data = as_utf8(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
    lines = [(number, text) for number, text in enumerate(data.split(b"\n"), 1) if text.strip()]
    if lines and (len(lines) == 1 or not is_json(lines[0][1])):
        lines = _json_values(data) or lines
    if len(lines) == 1 and (within := _rows_within(lines[0][1], config)):
        splits = _named_splits(within)
        for part, rows in within.items():
            yield from _values(part or name, rows, splits.get(part))
        return
    for number, text in lines:
        # a mark is left where files were joined, a comma where lines were taken out of a list
        plain = text.strip().removeprefix(BOM_UTF8).removesuffix(b",")
        yield Entry(file=name, number=number, text=plain)


def _rows_within(text: bytes, config: RowsConfig) -> dict[str, list[Any]]:
    """Return the rows in a JSON object, by the name of their list; nothing where it is a row.

    As programs write them: lists of rows under names, rows under ids, or pandas' columns.
    """
    try:
        value = load_json(text)
    except ValueError:
        return {}
    names = {"messages", "conversations", "instruction", "prompt", *config.columns.values()}
    is_row = isinstance(value, dict) and any(isinstance(value.get(n), str | list) for n in names)
    if not isinstance(value, dict) or is_row:
        return {}
    if value and all(isinstance(one, dict) for one in value.values()):
        if _are_rows(value.values(), names):
            return {"": list(value.values())}
        first, *others = value.values()
        is_table = bool(names & value.keys()) and all(first.keys() == one.keys() for one in others)
        return {"": [{n: value[n][row] for n in value} for row in first]} if is_table else {}
    lists = {name: one for name, one in value.items() if isinstance(one, list) and one}
    return {name: rows for name, rows in lists.items() if _are_rows(rows, names)}


def _are_rows(values: Iterable[Any], names: set[str]) -> bool:
    """Tell whether values are rows, by their fields."""
    return all(isinstance(one, dict) and bool(names & one.keys()) for one in values)


def _json_values(data: bytes) -> list[tuple[int, bytes]]:
    """Parse a JSON list, or JSON values over several lines; return each with its number.

    Returns:
        nothing where it is neither, to the last character.
    """
    try:
        text = data.decode().strip()
        comma = "," if text.startswith("[") and text.endswith("]") else ""
        space = re.compile(rf"[\s{comma}]*")
        at, last = (1, len(text) - 1) if comma else (0, len(text))
        found: list[tuple[int, bytes]] = []
        while (gap := space.match(text, at)) and (start := gap.end()) < last:
            _, at = json.JSONDecoder().raw_decode(text, start)
            found.append((len(found) + 1, text[start:at].encode()))
    except (ValueError, RecursionError):
        return []
    return found


def _is_hub_id(path: Path) -> bool:
    return not path.exists() and len(path.parts) == 2 and path.suffix not in ENDINGS


def _hub_source(path: Path, config: RowsConfig) -> TextSource:
    return TextSource(
        path=str(path),
        revision=config.revision,
        subset=config.subset,
        split=config.dataset_split or "train",
    )


def _as_text(value: Any) -> str:
    """Return a value of a data set that has no JSON form as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
