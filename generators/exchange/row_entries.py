"""Entries of own conversations in files: JSON, Parquet, data sets saved or on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError, first_line
from core.files import sha256_file
from core.text.byte_order import as_utf8
from generators.exchange.config import RowsConfig
from generators.kinds.config import TextSource
from generators.kinds.sources import is_saved_dataset, load_saved, resolve_texts, stream_from_hub

ENDINGS = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a file: JSON text, or a value that a data set holds."""

    file: str
    number: int
    text: bytes | None = None
    value: Any = None
    split: str | None = None


def conversation_files(path: Path) -> dict[str, Path]:
    """List the files at `path`, a file or a folder, by name.

    Raises:
        DataError: there is none.
    """
    if path.is_file() and path.suffix in ENDINGS:
        return {path.name: path}
    if is_saved_dataset(path):
        found = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        # `data` is where the hub's data sets, and exports as parquet, have their files
        found = _files_in(path) or _files_in(path / "data")
    if not found:
        what = "no such file or folder" if not path.exists() else "holds no conversations"
        raise DataError(
            f"{path}: {what}; expected a file that ends in {', '.join(ENDINGS)}, a folder of them, "
            "a folder that `datasets` saved, or the id of a dataset on the hub."
        )
    return {file.relative_to(path).as_posix(): file for file in found}


def _files_in(folder: Path) -> list[Path]:
    found = sorted(f for f in folder.glob("*") if f.is_file() and f.suffix in ENDINGS)
    # beside rows by the line, a .json file describes them, as dataset_infos.json does
    return [f for f in found if f.suffix != ".json"] or found


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
        for number, value in enumerate(stream_from_hub(source, commit), 1):
            yield Entry(file=str(path), number=number, value=_plain(value))
        return
    if is_saved_dataset(path):
        for split, rows in load_saved(path, config.dataset_split).items():
            for number, value in enumerate(rows, 1):
                yield Entry(
                    file=split or path.name, number=number, value=_plain(value), split=split
                )
        return
    for name, file in conversation_files(path).items():
        entries_of = _parquet_entries if file.suffix == ".parquet" else _text_entries
        yield from entries_of(name, file)


def _parquet_entries(name: str, file: Path) -> Iterator[Entry]:
    """Yield the rows of a Parquet file."""
    try:
        values = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({first_line(error)}).") from error
    for number, value in enumerate(values, 1):
        yield Entry(file=name, number=number, value=_plain(value))


def _text_entries(name: str, file: Path) -> Iterator[Entry]:
    """Yield the lines of a text file that are not blank, or the values of a JSON file."""
    try:
        data = as_utf8(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
    lines = [(number, text) for number, text in enumerate(data.split(b"\n"), 1) if text.strip()]
    if lines and (len(lines) == 1 or not _is_json(lines[0][1])):
        lines = _json_values(data) or lines
    for number, text in lines:
        yield Entry(file=name, number=number, text=text)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


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


def _plain(value: Any) -> Any:
    """Return a data set's value as JSON has it; what has no JSON form becomes text."""
    return json.loads(json.dumps(value, default=str))
